//! Pulled plugs: one while a container image is loaded, and five in each update, while a release is
//! downloaded, written and committed, in the picker, and on trial. After each the host comes up and goes
//! on; PostgreSQL, which is written to all the time, keeps every row that it has confirmed. It is one
//! update of one host; in the long form (`make proof`) two hosts side by side, the second with two
//! processors, take five together, and so twenty-seven plugs.

use contract::Slot;
use e2e::published::{Published, release};
use e2e::server::Fault;
use e2e::*;
use postgres::{Client, NoTls};
use qemu::{Config, Machine};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of each release that no earlier one has.
const NEW: usize = 16 << 20;

/// Where the plug is pulled.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// When so much of the new bytes was sent, in thousandths.
    Download(u64),
    /// When so many tenths, or more, are written.
    Write(u64),
    /// So many milliseconds after the last tenth is written: reading back, the commit, the restart.
    Commit(u64),
    /// So many milliseconds after the picker has chosen the new system.
    Picker(u64),
    /// The same, while the new system starts and is watched.
    Trial(u64),
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.below(u64::MAX).to_le_bytes()).collect()
    }
}

/// Release N.0.0: PostgreSQL preloaded, and a file that is new in it. Both hosts get the same.
fn numbered(n: u64) -> PathBuf {
    static BUILT_ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = BUILT_ONE_AT_A_TIME.lock().expect("the other host goes on, too");
    let source = images().join(format!("new-in-{n}"));
    std::fs::write(&source, Random(n).bytes(NEW)).expect("written");
    let file = format!("file=[{{path=\"/usr/share/new\",source=\"{}\"}}]", source.display());
    let name = "name=e2e-plugs";
    release(&format!("{n}.0.0"), &[name, "images=[\"containers/postgres.toml\"]", &file])
}

/// PostgreSQL in the guest, and the rows that it has confirmed.
struct Database {
    confirmed: Arc<Mutex<Vec<i64>>>,
    starts: u32,
    writer: Option<JoinHandle<()>>,
}

impl Database {
    /// Starts it, looks that nothing is lost, and writes to it until the plug is pulled.
    fn start(&mut self, host: &mut Machine) {
        self.starts += 1;
        // `ctr` covers /run of the container, where the socket would lie.
        let folders = "/var/lib/pg /run/pg";
        sh(host, &format!("busybox mkdir -p {folders} && busybox chown 999:999 {folders}"));
        let run = "ctr run -d --net-host --log-uri file:///run/db.log --env POSTGRES_PASSWORD=load \
                   --mount type=bind,src=/var/lib/pg,dst=/var/lib/postgresql/data,options=rbind:rw \
                   --mount type=bind,src=/run/pg,dst=/run/postgresql,options=rbind:rw \
                   berth.local/postgres:17 db";
        sh(host, &format!("{run}{}", self.starts));
        let mut client = connect(host);
        client
            .batch_execute("create table if not exists t (n bigint primary key)")
            .expect("a table");
        let rows = client.query("select n from t order by n", &[]).expect("the rows");
        let rows: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let confirmed = self.confirmed.lock().expect("the list").clone();
        let lost: Vec<_> = confirmed.iter().filter(|n| rows.binary_search(n).is_err()).collect();
        assert!(lost.is_empty(), "rows that were confirmed are gone: {lost:?}");
        println!("  database: {} rows confirmed, {} there", confirmed.len(), rows.len());

        let confirmed = Arc::clone(&self.confirmed);
        let mut next = rows.last().copied().unwrap_or(0).max(confirmed_last(&confirmed)) + 1;
        self.writer = Some(std::thread::spawn(move || {
            while client.execute("insert into t values ($1)", &[&next]).is_ok() {
                confirmed.lock().expect("the list").push(next);
                next += 1;
                // Most of the processor is for the update.
                std::thread::sleep(Duration::from_millis(200));
            }
        }));
    }

    /// Waits until the writer has noticed the end of the machine.
    fn stopped(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer ends");
        }
    }
}

fn confirmed_last(confirmed: &Mutex<Vec<i64>>) -> i64 {
    confirmed.lock().expect("the list").last().copied().unwrap_or(0)
}

fn connect(host: &mut Machine) -> Client {
    let port = host.port(5432).expect("a port");
    let end = Instant::now() + SOON;
    let mut config = postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").password("load").dbname("postgres");
    config.connect_timeout(Duration::from_secs(20));
    loop {
        match config.connect(NoTls) {
            Ok(client) => return client,
            Err(e) if Instant::now() > end => {
                panic!("PostgreSQL does not answer: {e}\n{}", sh(host, "busybox cat /run/db.log"))
            }
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    }
}

/// How often PostgreSQL's archive was loaded since the host started.
fn loaded(host: &mut Machine) -> usize {
    sh(host, "dmesg").matches("image postgres.tar: loaded").count()
}

/// Waits for the moment.
fn wait(moment: Moment, version: &str, host: &mut Machine, published: &Published, sent: u64) {
    let picked = format!("version {version}, on trial");
    match moment {
        Moment::Download(thousandths) => {
            let wanted = sent + NEW as u64 * thousandths / 1000;
            let end = Instant::now() + BOOT;
            while published.server().sent() < wanted {
                assert!(Instant::now() < end, "{version} is not downloaded");
                std::thread::sleep(Duration::from_millis(1));
            }
            return;
        }
        Moment::Write(tenths) => {
            // A download that was interrupted goes on in the middle.
            let mut written = 0;
            while written < tenths * 10 {
                let line = host.wait_for_line(" % written", BOOT).expect("the progress").text;
                let words: Vec<_> = line.split(' ').collect();
                written = words[words.len() - 3].parse().expect("a number");
            }
            return;
        }
        Moment::Commit(_) => {
            host.wait_for_line(&format!("updater: {version} 100 % written"), BOOT).expect("written")
        }
        Moment::Picker(_) | Moment::Trial(_) => host.wait_for_line(&picked, BOOT).expect("the new"),
    };
    let (Moment::Commit(pause) | Moment::Picker(pause) | Moment::Trial(pause)) = moment else {
        unreachable!("the others have returned");
    };
    std::thread::sleep(Duration::from_millis(pause));
}

/// Takes a host through so many updates.
fn update(updates: u64, cpus: u32, seed: u64) {
    let last = 1 + updates;
    let published = Published::new();
    let first = numbered(1);
    published.add(&first);
    let update = "interval = 5\nsoak = 2\ntries = 5\ndeadline = 600";
    let disk = published.disk(&first, update);
    let config = Config { cpus, ports: vec![forward(5432)], ..disk.config() };
    let mut database = Database { confirmed: Arc::default(), starts: 0, writer: None };
    let mut random = Random(seed);

    // The first one: containerd has just noted what it has unpacked.
    let mut host = start(&config);
    host.wait_for_line("image postgres.tar: loaded", BOOT).expect("loaded");
    host.pull_plug();
    let loads = host.console().iter().filter(|line| line.text.contains(": loaded")).count();
    assert_eq!(loads, 1);
    let (mut host, _) = boot(&config);
    database.start(&mut host);
    for n in 2..=last {
        let version = format!("{n}.0.0");
        let sent = published.server().sent();
        published.add(&numbered(n));
        for moment in [
            Moment::Download(random.below(1000)),
            Moment::Write(1 + random.below(9)),
            Moment::Commit(random.below(6000)),
            Moment::Picker(random.below(2000)),
            Moment::Trial(random.below(20_000)),
        ] {
            wait(moment, &version, &mut host, &published, sent);
            host.pull_plug();
            println!("{version}: plug pulled at {moment:?}");
            database.stopped();
            if matches!(moment, Moment::Download(_) | Moment::Write(_)) {
                // The download goes on once the database is written to.
                published.server().fail("content/", Fault::Hold);
                host = boot(&config).0;
                database.start(&mut host);
                published.server().heal();
            } else {
                host = start(&config);
            }
        }
        let ready = host.wait_ready(BOOT).expect("the host gets ready");
        let slot = if n % 2 == 0 { Slot::B } else { Slot::A };
        assert_eq!((ready.slot, ready.version.as_str()), (Some(slot), version.as_str()));
        assert_eq!(loaded(&mut host), 0, "the archive is the one that the last release had");
        // On a fast machine the trial was over before the plug was pulled, and `status` says no more
        // how it ended: the history does.
        let healthy = format!("{version}  healthy");
        sh_until(&mut host, "berth-updater history", |text| text.contains(&healthy));
        database.start(&mut host);
    }
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");
    database.stopped();
    let report = berth_ok(["inspect".as_ref(), disk.path().as_os_str(), "--verify".as_ref()]);
    for n in [last - 1, last] {
        assert!(report.contains(&format!("{n}.0.0")), "{n}: {report}");
    }
    println!(
        "{} rows were confirmed, and none is lost",
        database.confirmed.lock().expect("it").len()
    );
}

#[test]
fn whenever_the_plug_is_pulled_the_update_completes_and_nothing_is_lost() {
    if !std::env::var("BERTH_PROOF").is_ok_and(|value| value == "full") {
        return update(1, 1, 0x1CEB_00DA);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| update(3, 1, 0x1CEB_00DA));
        scope.spawn(|| update(2, 2, 0xCA11_AB1E));
    });
}
