//! A private registry that a host trusts because its configuration says so, and a mirror of another one.

use e2e::registry::{Authority, Registry};
use e2e::rows::Rows;
use e2e::*;

#[test]
fn images_come_from_and_go_to_a_registry_with_a_certificate_of_its_own() {
    let authority = Authority::new();
    let private = Registry::start(&authority);
    let mirror = Registry::mirror(&authority, &private);
    let (name, beside) = (private.name(), mirror.name());

    let disk = Disk::copy_of(docker_image());
    disk.put_on_esp("registry-ca.pem", &authority.pem());
    disk.put_on_esp(
        "host.toml",
        &format!(
            "[time]\nservers = []\n\
             [[registry]]\nname = \"{name}\"\nca-file = \"registry-ca.pem\"\n\
             [[registry]]\nname = \"{beside}\"\nca = \"\"\"\n{}\"\"\"\n\
             [[registry]]\nname = \"docker.io\"\nmirrors = [\"https://{beside}\"]\n\
             [sysctl]\n\"vm.max_map_count\" = 262144\n\"net.ipv4.conf.eth0.log_martians\" = \"1\"\n\
             \"vm.no_such_setting\" = 1\n",
            authority.pem()
        ),
    );
    let (mut host, _) = boot(&disk.config());
    let mut rows = Rows::new(&mut host);

    rows.row(
        "docker pushes to it and pulls from it",
        &format!(
            "docker tag $B {name}/team/box:1
             docker push {name}/team/box:1
             docker rmi {name}/team/box:1
             docker pull {name}/team/box:1
             same \"$(docker run --rm {name}/team/box:1 echo pulled)\" pulled"
        ),
    );
    rows.row(
        "BuildKit pulls from it",
        &format!(
            "docker tag $B {name}/team/base:1
             docker push {name}/team/base:1
             docker rmi {name}/team/base:1
             mkdir -p /tmp/build
             cd /tmp/build
             echo 'FROM {name}/team/base:1' > Dockerfile
             docker build --pull -t based:1 .
             same \"$(docker run --rm based:1 echo built)\" built"
        ),
    );
    rows.row(
        "docker finds in the mirror what has no registry in its name",
        &format!(
            "docker tag $B {name}/library/thing:1
             docker push {name}/library/thing:1
             docker rmi {name}/library/thing:1
             docker pull thing:1
             same \"$(docker run --rm thing:1 echo mirrored)\" mirrored"
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
        "settings of the kernel are made",
        "same \"$(cat /proc/sys/vm/max_map_count /proc/sys/net/ipv4/conf/eth0/log_martians | tr '\\n' ' ')\" '262144 1 '",
    );
    rows.check("a setting that the kernel does not know is told", |host| {
        let told = "sysctl vm.no_such_setting = 1: No such file";
        let found = host.console().iter().any(|line| line.text.contains(told));
        found.then_some(()).ok_or_else(|| "it is not".to_owned())
    });
    rows.all_held();
}
