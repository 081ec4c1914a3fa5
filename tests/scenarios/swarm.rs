//! Docker Swarm on two hosts with a cable between them.

use e2e::rows::Rows;
use e2e::*;
use qemu::{Config, Machine};
use std::net::UdpSocket;

/// Two ports of this machine that lead to each other: the ends of a cable.
fn cable() -> [u16; 2] {
    let ends = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    ends.map(|end| end.local_addr().expect("an address").port())
}

/// A host with a second card on its end of the cable.
fn node(disk: &Disk, name: &str, number: u8, local: u16, remote: u16) -> Config {
    let mac = format!("52:54:00:44:00:0{number}");
    let text = format!(
        "hostname = \"{name}\"\n[time]\nservers = []\n[docker]\nlive-restore = false\n\
         [[network.interface]]\nname = \"{mac}\"\naddress = [\"10.44.0.{number}/24\"]\n"
    );
    let netdev = format!(
        "dgram,id=cable,local.type=inet,local.host=127.0.0.1,local.port={local},\
         remote.type=inet,remote.host=127.0.0.1,remote.port={remote}"
    );
    let card = format!("virtio-net-pci,netdev=cable,mac={mac},romfile=");
    let extra = ["-netdev", &netdev, "-device", &card].map(Into::into).to_vec();
    Config { extra, host_config: Some(disk.host_config(&text)), ..disk.config() }
}

/// What a web server says of itself is who it is.
const SERVE: &str =
    "sh -c 'echo $VERSION $(hostname) > /w/index.html; exec httpd -f -p 8080 -h /w'";

#[test]
fn two_hosts_make_a_swarm_and_one_outlives_the_other() {
    let disks = [(); 2].map(|()| Disk::copy_of(docker_image()));
    let [left, right] = cable();
    let mut one = start(&node(&disks[0], "one", 1, left, right));
    let mut two = start(&node(&disks[1], "two", 2, right, left));
    for host in [&mut one, &mut two] {
        host.wait_ready(BOOT).expect("the host gets ready");
    }
    sh(
        &mut one,
        "docker swarm init --advertise-addr 10.44.0.1 && docker swarm update --dispatcher-heartbeat 10s",
    );
    let token = sh(&mut one, "docker swarm join-token -q worker");
    sh(&mut two, &format!("docker swarm join --token {} 10.44.0.1:2377", token.trim()));

    let mut rows = Rows::new(&mut one);
    rows.row(
        "both nodes are known and labelled",
        "same \"$(docker node ls --format '{{.Hostname}} {{.Status}}' | sort | tr '\\n' ' ')\" 'one Ready two Ready '
         docker node update --label-add place=left one
         docker node update --label-add place=right two",
    );
    rows.row(
        "a service keeps three replicas, on both nodes",
        &format!(
            "docker network create -d overlay --attachable mesh
             docker service create -q --no-resolve-image --name web --replicas 3 --network mesh -p 8080:8080 \
               --mount type=tmpfs,target=/w,tmpfs-mode=1777 -e VERSION=1 --stop-grace-period 1s --update-parallelism 1 $B {SERVE}
             same \"$(docker service ls -f name=web --format '{{{{.Replicas}}}}')\" 3/3
             same \"$(nodes web)\" 'one two '"
        ),
    );
    rows.row(
        "a service goes where a label says",
        "docker service create -q --no-resolve-image --name placed --network mesh \
           --constraint node.labels.place==right $B sleep 100000
         same \"$(nodes placed)\" 'two '",
    );
    rows.row(
        "its port answers at every host, whoever serves",
        "for host in 10.44.0.1 10.44.0.2 127.0.0.1; do
           soon \"wget -qO- http://$host:8080/ | grep '^1 '\"
         done
         for i in 1 2 3 4 5 6; do wget -qO- http://10.44.0.1:8080/; done | sort -u > /tmp/served
         same \"$(wc -l < /tmp/served | tr -d ' ')\" 3",
    );
    rows.row(
        "the overlay network has names and reaches over the cable",
        "docker run --rm --user 0 --network mesh $B ping -c 1 -W 10 placed
         has \"$(docker run --rm --network mesh $B wget -qO- http://web:8080/)\" '1 '
         same \"$(docker run --rm --network mesh $B nslookup -type=a tasks.web | grep -c 'Address: 10')\" 3",
    );
    rows.row(
        "an update rolls over the replicas",
        "docker service update -q --no-resolve-image --env-add VERSION=2 web
         same \"$(docker service inspect -f '{{.UpdateStatus.State}}' web)\" completed
         same \"$(docker service ls -f name=web --format '{{.Replicas}}')\" 3/3
         soon \"wget -qO- http://10.44.0.2:8080/ | grep '^2 '\"",
    );
    two_serves(&mut rows, &mut two);
    two.pull_plug();
    rows.row(
        "what ran on a node that died runs on the other one",
        "soon \"docker node ls --format '{{.Hostname}} {{.Status}}' | grep 'two Down'\"
         soon '[ \"$(nodes web)\" = \"one \" ]'
         soon '[ \"$(docker service ls -f name=web --format {{.Replicas}})\" = 3/3 ]'
         soon \"wget -qO- http://10.44.0.1:8080/ | grep '^2 '\"",
    );
    rows.all_held();
}

/// The routing mesh as the worker sees it.
fn two_serves(rows: &mut Rows, two: &mut Machine) {
    rows.check("its port answers the worker too", |_| {
        let command = "wget -qO- http://10.44.0.1:8080/ && wget -qO- http://127.0.0.1:8080/";
        let output = two.shell(command, SOON).map_err(|e| e.to_string())?;
        let lines = output.stdout.lines().filter(|line| line.starts_with("2 ")).count();
        (lines == 2).then_some(()).ok_or(output.stdout)
    });
}
