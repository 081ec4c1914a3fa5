//! Where a host finds images: in registries that it is told to trust, their mirrors, through a proxy.

use e2e::registry::{Authority, DEVELOPER, Registry};
use e2e::rows::Rows;
use e2e::*;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;

/// Starts a proxy that lets nobody through. Returns its port, and the first line of each question.
fn refusing_proxy() -> (u16, mpsc::Receiver<String>) {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = proxy.local_addr().expect("an address").port();
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in proxy.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let mut reader = BufReader::new(stream);
            if reader.read_line(&mut line).is_err() || asked.send(line).is_err() {
                return;
            }
            let _ = reader.get_mut().write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
        }
    });
    (port, questions)
}

/// Pushes the image at hand under a name, and keeps none of that name.
fn push(name: &str) -> String {
    format!("docker tag $B {name}; docker push {name}; docker rmi {name}")
}

#[test]
fn images_come_and_go_the_way_that_the_host_configuration_says() {
    let authority = Authority::new();
    let private = Registry::start(&authority);
    let mirror = Registry::mirror(&authority, &private);
    let (name, beside) = (private.name(), mirror.name());
    let (proxy, questions) = refusing_proxy();

    let disk = Disk::copy_of(docker_image());
    disk.put_on_esp("registry-ca.pem", &authority.pem());
    disk.put_on_esp(
        "host.toml",
        &format!(
            "[time]\nservers = []\n\
             [proxy]\nhttp = \"http://{DEVELOPER}:{proxy}\"\nexclude = [\"{DEVELOPER}\"]\n\
             [[registry]]\nname = \"{name}\"\nca-file = \"registry-ca.pem\"\n\
             [[registry]]\nname = \"{beside}\"\nca = \"\"\"\n{}\"\"\"\n\
             [[registry]]\nname = \"docker.io\"\nmirrors = [\"https://{beside}\"]\n",
            authority.pem()
        ),
    );
    let (mut host, _) = boot(&disk.config());
    let mut rows = Rows::new(&mut host);

    rows.row(
        "docker pushes to it and pulls from it",
        &format!(
            "{}
             docker pull {name}/team/box:1
             same \"$(docker run --rm {name}/team/box:1 echo pulled)\" pulled",
            push(&format!("{name}/team/box:1"))
        ),
    );
    rows.row(
        "BuildKit pulls from it",
        &format!(
            "{}
             mkdir -p /tmp/build
             cd /tmp/build
             echo 'FROM {name}/team/base:1' > Dockerfile
             docker build --pull -t based:1 .
             same \"$(docker run --rm based:1 echo built)\" built",
            push(&format!("{name}/team/base:1"))
        ),
    );
    rows.row(
        "docker finds in the mirror what has no registry in its name",
        &format!(
            "{}
             docker pull thing:1
             same \"$(docker run --rm thing:1 echo mirrored)\" mirrored",
            push(&format!("{name}/library/thing:1"))
        ),
    );
    let ctr = "ctr --namespace trial images";
    let hosts = "--hosts-dir /etc/containerd/certs.d";
    rows.row(
        "containerd pulls from it and pushes to it",
        &format!(
            "{ctr} pull {hosts} {name}/team/box:1
             {ctr} tag {name}/team/box:1 {name}/team/box:2
             {ctr} push {hosts} {name}/team/box:2
             docker pull {name}/team/box:2
             same \"$(ctr --namespace trial run --rm {name}/team/box:1 one echo pulled)\" pulled"
        ),
    );
    rows.row(
        "containerd finds in the mirror what has no registry in its name",
        &format!("{ctr} pull {hosts} docker.io/library/thing:1"),
    );
    rows.row(
        "without being told nobody trusts it",
        &format!(
            "out=$({ctr} pull {name}/team/base:1 2>&1) && exit 1
             has \"$out\" 'certificate signed by unknown authority'"
        ),
    );
    rows.row(
        "all others are asked through the proxy",
        "out=$(docker pull registry.example.org/app:1 2>&1) && exit 1
         has \"$out\" Forbidden",
    );
    rows.all_held();
    let questions: Vec<String> = questions.try_iter().collect();
    let asked = "CONNECT registry.example.org:443 HTTP/1.1";
    assert!(questions.iter().any(|question| question.starts_with(asked)), "{questions:?}");
    assert!(!questions.iter().any(|question| question.contains(DEVELOPER)), "{questions:?}");
}
