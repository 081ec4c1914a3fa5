//! The clock: hardware that remembers the wrong time, or none.

use e2e::*;
use qemu::{Config, Machine};
use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, on this machine.
fn here() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Seconds since 1970, in the guest.
fn there(host: &mut Machine) -> u64 {
    sh(host, "date +%s").trim().parse().expect("a number")
}

/// A port of this machine that a time server can use.
fn time_port() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

/// Answers as a time server that is right.
fn answer_on(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut packet = [0; 128];
        while let Ok((48.., from)) = socket.recv_from(&mut packet) {
            // Version 4, a server; stratum 1. The client's own time comes back to it.
            let mut answer = [0; 48];
            (answer[0], answer[1]) = (0b00_100_100, 1);
            answer[24..32].copy_from_slice(&packet[40..48]);
            let since_1900 = (here() + 2_208_988_800) as u32;
            answer[32..36].copy_from_slice(&since_1900.to_be_bytes());
            answer[40..44].copy_from_slice(&since_1900.to_be_bytes());
            if socket.send_to(&answer, from).is_err() {
                return;
            }
        }
    });
}

#[test]
fn wrong_hardware_clocks_are_survived_and_set_right_by_a_time_server() {
    let disk = Disk::copy_of(containerd_image());
    let config = |base: &str, port: u16| Config {
        extra: ["-rtc".into(), format!("base={base}").into()].to_vec(),
        host_config: Some(disk.host_config(&format!("[time]\nservers = [\"10.0.2.2:{port}\"]\n"))),
        ..disk.config()
    };

    // Twenty years ahead, and somebody knows better.
    let (right, port) = time_port();
    answer_on(right);
    let mut host = start(&config("2046-07-01T00:00:00", port));
    host.wait_for_line(" s ahead, set by 10.0.2.2", BOOT).expect("it is set right");
    if !host.console().iter().any(|line| line.text.starts_with("berth: ready ")) {
        host.wait_ready(BOOT).expect("the host gets ready");
    }
    let (guest, real) = (there(&mut host), here());
    assert!(guest.abs_diff(real) < 60, "{guest} {real}");
    let noted = real;
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");

    // It has forgotten everything, and nobody answers: not behind what was known before. (The
    // firmware takes 1970 for 2070, which is as wrong.)
    let (silent, port) = time_port();
    let mut host = start(&config("1970-01-01T00:00:00", port));
    host.wait_for_line("clock: was far ahead, set to ", BOOT).expect("it is set back");
    host.wait_ready(BOOT).expect("nobody's silence keeps the host from getting ready");
    let (guest, real) = (there(&mut host), here());
    assert!(guest + 60 >= noted && guest < real + 600, "{guest} {noted} {real}");
    host.pull_plug();

    // Ahead within reason, and nobody answers.
    let mut host = start(&config("2046-07-01T00:00:00", port));
    host.wait_ready(BOOT).expect("the host gets ready");
    assert!(there(&mut host) > 2_400_000_000);
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");

    // The next boot does not believe what that one did. A server that answers only while containers
    // may run does not make the clock jump: it runs slower until it is right.
    let ahead = jiff::Timestamp::now() + Duration::from_secs(30);
    let mut host = start(&config(&ahead.strftime("%Y-%m-%dT%H:%M:%S").to_string(), port));
    host.wait_ready(BOOT).expect("the host gets ready");
    let (guest, real) = (there(&mut host), here());
    assert!(guest.abs_diff(real) < 600, "{guest} {real}");
    answer_on(silent);
    host.wait_for_line("without a jump", SOON).expect("it is told");
    assert!(sh(&mut host, "adjtimex").contains("9500"), "{}", sh(&mut host, "adjtimex"));
}
