//! Everything that people do with Docker, row by row in one host. A row that fails does not keep the
//! others from being tried; all that failed are told at the end, by name.

use e2e::rows::Rows;
use e2e::*;
use qemu::Config;

#[test]
fn docker_does_what_people_do_with_it() {
    let disk = Disk::copy_of(docker_image());
    let host_config = Some(disk.host_config("[time]\nservers = []\n"));
    let config = Config { ports: vec![forward(8081)], host_config, ..disk.config() };
    let (mut host, _) = boot(&config);
    let mut rows = Rows::new(&mut host);
    engine(&mut rows);
    builds(&mut rows);
    images(&mut rows);
    containers(&mut rows);
    networks(&mut rows);
    rows.check("a published port answers the developer's machine", |host| {
        let answer = host.http_get(8081, "/", SOON).map_err(|e| e.to_string())?;
        (answer.text() == "page\n").then_some(()).ok_or_else(|| answer.text())
    });
    storage(&mut rows);
    security(&mut rows);
    limits(&mut rows);
    care(&mut rows);
    compose(&mut rows);
    rows.all_held();
}

fn engine(rows: &mut Rows) {
    rows.row(
        "timers are late where the processor is emulated, and nowhere else",
        "late=50000
         if grep -q 'model name.*TCG' /proc/cpuinfo; then late=4000000; fi
         for program in dockerd containerd; do
           same \"$(cat /proc/$(pidof $program)/timerslack_ns)\" $late
         done",
    );
    rows.row(
        "docker info has no complaints",
        "same \"$(docker info 2>&1 | grep -E 'WARNING|ERROR')\" ''",
    );
    rows.row(
        "the engine uses what containers expect of a kernel",
        "same \"$(docker info -f '{{.Driver}} {{.CgroupDriver}} {{.CgroupVersion}}')\" 'overlay2 cgroupfs 2'
         has \"$(docker info -f '{{.SecurityOptions}}')\" seccomp",
    );
    rows.row(
        "crun starts containers, and runc does when it is told to",
        "has \"$(docker info -f '{{.DefaultRuntime}} {{.Runtimes}}')\" 'crun map['
         same \"$(alone --runtime runc $B echo ran)\" ran",
    );
}

fn builds(rows: &mut Rows) {
    rows.row(
        "an image is built by BuildKit, the default",
        "mkdir -p /tmp/build
         cd /tmp/build
         cat > Dockerfile <<END
FROM $B AS make
USER 0:0
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/scratch echo page > /cache/page && cp /cache/page /made
FROM $B
ARG WHO=nobody
LABEL made.for=\\$WHO
COPY --from=make /made /srv/index.html
EXPOSE 8080
CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/srv\"]
END
         docker build -t web:1 --build-arg WHO=me .
         same \"$(docker inspect -f '{{index .Config.Labels \"made.for\"}}' web:1)\" me
         same \"$(alone web:1 cat /srv/index.html)\" page",
    );
    rows.row(
        "a second build of the same is made of what is kept",
        "cd /tmp/build
         out=$(docker build --progress plain -t web:1 --build-arg WHO=me . 2>&1)
         has \"$out\" CACHED",
    );
    rows.row(
        "an image is built by the legacy builder",
        "mkdir -p /tmp/legacy
         cd /tmp/legacy
         printf 'FROM %s\\nUSER 0:0\\nRUN echo built > /built\\nCMD [\"cat\", \"/built\"]\\n' $B > Dockerfile
         DOCKER_BUILDKIT=0 docker build -t legacy:1 .
         same \"$(alone legacy:1)\" built",
    );
}

fn images(rows: &mut Rows) {
    rows.row(
        "images are tagged, listed, saved, removed and loaded",
        "docker tag web:1 example.org/team/web:2
         has \"$(docker images)\" example.org/team/web
         docker save -o /tmp/web.tar example.org/team/web:2
         docker rmi example.org/team/web:2
         same \"$(docker images -q example.org/team/web)\" ''
         docker load -i /tmp/web.tar
         docker image inspect example.org/team/web:2 > /dev/null
         docker rmi example.org/team/web:2",
    );
    rows.row(
        "an image packed by xz is loaded",
        "/usr/bin/xz -0 /tmp/web.tar
         docker load -i /tmp/web.tar.xz
         rm /tmp/web.tar.xz
         docker image inspect example.org/team/web:2 > /dev/null
         docker rmi example.org/team/web:2",
    );
    rows.row(
        "a container becomes an image by commit, export and import",
        "docker run --name changed --network none --user 0 $B sh -c 'echo new > /new'
         has \"$(docker diff changed)\" 'A /new'
         docker commit changed committed:1
         same \"$(alone committed:1 cat /new)\" new
         docker export changed | docker import - imported:1
         same \"$(alone imported:1 cat /new)\" new
         docker rm changed
         docker rmi committed:1 imported:1",
    );
    rows.row("the history of an image is told", "has \"$(docker history web:1)\" httpd");
}

fn containers(rows: &mut Rows) {
    rows.row("a program of busybox runs by its name", "has \"$(docker run --rm $B ls /)\" usr");
    rows.row(
        "a container runs, is listed, logs and is inspected",
        "docker run -d --name one --hostname first -e COLOR=blue -w /srv $B sh -c 'echo $COLOR; exec sleep 100000'
         has \"$(docker ps)\" one
         soon '[ \"$(docker logs one)\" = blue ]'
         same \"$(docker inspect -f '{{.State.Status}} {{.Config.Hostname}}' one)\" 'running first'
         same \"$(docker exec one pwd)\" /srv",
    );
    rows.row(
        "exec gives a terminal",
        "has \"$(docker exec -t one tty)\" /dev/pts/
         has \"$(docker exec -i -t one tty < /dev/ttyS1)\" /dev/pts/
         same \"$(echo through | docker exec -i one cat)\" through",
    );
    rows.row("the processes of a container are told", "has \"$(docker top one)\" 'sleep 100000'");
    rows.row("the use of a container is told", "has \"$(docker stats --no-stream one)\" '%'");
    rows.row(
        "files are copied into a container and out of it",
        "echo copied > /tmp/file
         docker cp /tmp/file one:/srv/file
         docker cp one:/srv/file /tmp/back
         same \"$(cat /tmp/back)\" copied",
    );
    rows.row(
        "a container is paused, renamed, stopped, started, restarted and killed",
        "docker pause one
         same \"$(docker inspect -f '{{.State.Status}}' one)\" paused
         docker unpause one
         docker rename one uno
         docker stop -t 1 uno
         same \"$(docker ps -q -f name=uno)\" ''
         docker start uno
         docker restart -t 1 uno
         docker exec uno true
         docker kill uno
         same \"$(docker wait uno)\" 137
         docker rm uno
         same \"$(docker ps -aq -f name=uno)\" ''",
    );
    rows.row(
        "stopping asks a program to end, and tells how it did",
        "docker run -d --name polite --network none $B sh -c 'trap \"exit 7\" TERM; echo up; while :; do sleep 0.1; done'
         soon 'docker logs polite | grep -q up'
         docker stop polite
         same \"$(docker inspect -f '{{.State.ExitCode}}' polite)\" 7
         docker rm polite",
    );
    rows.row(
        "a small init reaps what a program leaves",
        "has \"$(alone --init $B ps)\" docker-init",
    );
    rows.row(
        "what happened is told afterwards",
        "has \"$(docker events --since 30m --until 0s --filter event=rename)\" name=uno",
    );
}

fn networks(rows: &mut Rows) {
    rows.row(
        "a published port answers the host",
        "docker run -d --name web -p 8081:8080 web:1
         soon '[ \"$(wget -qO- 127.0.0.1:8081)\" = page ]'
         has \"$(docker port web)\" 8081",
    );
    rows.row(
        "containers of a user's network find each other by name and alias",
        "docker network create team
         docker run -d --name front --network team --network-alias site web:1
         docker run -d --name back --network team --user 0 $B sleep 100000
         soon '[ \"$(docker exec back wget -qO- http://front:8080/)\" = page ]'
         same \"$(docker exec back wget -qO- http://site:8080/)\" page
         has \"$(docker exec back nslookup front)\" Address",
    );
    rows.row(
        "other networks are apart until they are joined",
        "there=$(docker inspect -f '{{.NetworkSettings.Networks.team.IPAddress}}' front)
         not docker exec back nslookup web
         not docker exec web wget -T 2 -qO- http://$there:8080/
         docker network connect team web
         docker exec back wget -qO- http://web:8080/
         docker network disconnect team web
         not docker exec back nslookup web",
    );
    rows.row(
        "an internal network and none at all",
        "docker network create --internal inside
         same \"$(docker run --rm --network inside $B ip route | grep default)\" ''
         same \"$(alone $B ls /sys/class/net)\" lo
         docker network rm inside",
    );
    rows.row(
        "the host's own network",
        "has \"$(docker run --rm --network host $B ip addr show eth0)\" 10.0.2.15",
    );
    rows.row(
        "macvlan puts containers beside the host",
        "docker network create -d macvlan -o parent=eth0 --subnet 10.99.0.0/24 beside
         docker run -d --name away --network beside --ip 10.99.0.7 $B sleep 100000
         docker run --rm --network beside --user 0 $B ping -c 1 -W 10 10.99.0.7
         docker rm -f away
         docker network rm beside",
    );
    rows.row(
        "ipvlan does so with the host's hardware address",
        "docker network create -d ipvlan -o parent=eth0 --subnet 10.98.0.0/24 beside
         has \"$(docker run --rm --network beside --ip 10.98.0.7 $B ip addr show eth0)\" \
           \"link/ether $(cat /sys/class/net/eth0/address)\"
         docker network rm beside",
    );
    rows.row(
        "IPv6 between containers, by name",
        "docker network create --ipv6 --subnet fd00:be::/64 six
         docker run -d --name v6 --network six -p 8083:8080 web:1 httpd -f -p '[::]:8080' -h /srv
         out=$(docker run --rm --network six --user 0 $B sh -c \
           'ping6 -c 1 -W 10 v6 > /dev/null && wget -qO- http://[fd00:be::2]:8080/')
         same \"$out\" page",
    );
    rows.row(
        "IPv6 to a published port",
        "soon '[ \"$(wget -qO- http://[::1]:8083/)\" = page ]'; docker rm -f v6; docker network rm six",
    );
    rows.row("containers are let out to the network", "docker exec back ping -c 1 -W 10 10.0.2.2");
    rows.row(
        "networks are removed",
        "docker rm -f front back
         docker network rm team",
    );
}

fn storage(rows: &mut Rows) {
    rows.row(
        "a named volume outlives its containers",
        "docker volume create data
         alone --user 0 -v data:/data $B sh -c 'echo kept > /data/file'
         same \"$(alone --user 0 -v data:/data:ro $B sh -c 'touch /data/x 2> /dev/null || cat /data/file')\" kept
         docker volume rm data
         same \"$(docker volume ls -q)\" ''",
    );
    rows.row(
        "a read-only root is read-only, a tmpfs as large as it may be",
        "out=$(alone --user 0 --read-only --tmpfs /t:size=1m $B sh -c \
           'touch /file; touch /t/file && echo fits; dd if=/dev/zero of=/t/x bs=1M count=2' 2>&1) || true
         has \"$out\" '/file: Read-only file system'
         has \"$out\" fits
         has \"$out\" 'No space left on device'",
    );
    rows.row(
        "folders of the host are bound, also what is mounted in them later",
        "mkdir -p /var/lib/bound
         echo host > /var/lib/bound/file
         same \"$(alone -v /var/lib/bound:/b:ro -v /etc/ssl/certs:/c:ro $B cat /b/file)\" host
         alone --privileged --user 0 -v /var/lib/bound:/b:rshared $B mount -t tmpfs none /b
         has \"$(cat /proc/mounts)\" ' /var/lib/bound tmpfs'
         umount /var/lib/bound",
    );
}

fn security(rows: &mut Rows) {
    const STATUS: &str = "grep -E \"CapEff|Seccomp:|NoNewPrivs\" /proc/self/status";
    rows.row(
        "seccomp is on and capabilities are few by default",
        &format!(
            "out=$(alone --user 0 $B sh -c '{STATUS}; unshare -r true || echo refused' 2>&1 | tr -s '\\t\\n' '  ')
             has \"$out\" 'CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 '
             has \"$out\" 'refused '"
        ),
    );
    rows.row(
        "capabilities are dropped and added, privileges not gained",
        &format!(
            "out=$(alone --user 0 --cap-drop ALL --cap-add NET_ADMIN --security-opt no-new-privileges \
               $B sh -c '{STATUS}' | tr -s '\\t\\n' '  ')
             same \"$out\" 'CapEff: 0000000000001000 NoNewPrivs: 1 Seccomp: 2 '
             has \"$(alone --user 0 --cap-drop ALL $B sh -c '{STATUS}')\" 0000000000000000"
        ),
    );
    rows.row(
        "a program runs as the user it is told",
        "same \"$(alone --user 1000:2000 $B sh -c 'id -u; id -g' | tr '\\n' ' ')\" '1000 2000 '",
    );
    rows.row(
        "a seccomp profile of one's own",
        "cat > /tmp/profile.json <<END
{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"mkdir\", \"mkdirat\"], \"action\": \"SCMP_ACT_ERRNO\"}]}
END
         not alone --user 0 --security-opt seccomp=/tmp/profile.json $B mkdir /x",
    );
    rows.row(
        "what is dangerous in /proc is out of reach",
        "out=$(alone --user 0 $B sh -c 'echo kcore $(head -c 1 /proc/kcore | wc -c); echo 1 > /proc/sys/kernel/panic' 2>&1) || true
         has \"$out\" 'kcore 0'
         has \"$out\" 'Read-only file system'",
    );
    rows.row(
        "devices, kernel settings and ulimits of a container",
        "out=$(alone --user 0 --device /dev/vda --sysctl net.core.somaxconn=77 --ulimit nofile=123:123 $B sh -c \
           'test -b /dev/vda; echo $?; cat /proc/sys/net/core/somaxconn; ulimit -n' | tr '\\n' ' ')
         same \"$out\" '0 77 123 '",
    );
}

fn limits(rows: &mut Rows) {
    rows.row(
        "limits arrive in the control group",
        "out=$(alone -m 32m --cpus 0.5 --pids-limit 9 --cpuset-cpus 0 $B sh -c \
           'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max cpuset.cpus.effective' | tr '\\n' ' ')
         same \"$out\" '33554432 50000 100000 9 0 '",
    );
    rows.row(
        "a container that takes more memory than it may is killed, and only it",
        "docker run --name hungry --network none -m 64m --memory-swap 64m $B sh -c 'sleep 3; x=a; while :; do x=$x$x; done' || code=$?
         same \"$code\" 137
         same \"$(docker inspect -f '{{.State.OOMKilled}}' hungry)\" true
         docker exec web true
         docker rm hungry",
    );
    rows.row(
        "a container that takes more time than it may is held back",
        "docker run -d --name busy --network none --user 0 --cpus 0.3 $B sh -c 'while :; do :; done'
         group=/sys/fs/cgroup/docker/$(docker inspect -f {{.Id}} busy)
         soon 'grep -q \"^nr_throttled [1-9]\" $group/cpu.stat'
         docker update --cpus 0.5 busy
         has \"$(cat $group/cpu.max)\" '50000 '
         docker rm -f busy",
    );
    rows.row(
        "a container has no more processes than it may",
        "out=$(alone --pids-limit 4 $B sh -c 'for i in 1 2 3 4 5 6; do sleep 1 & done; wait' 2>&1) || true
         has \"$out\" fork",
    );
}

fn care(rows: &mut Rows) {
    rows.row(
        "the health of a container is watched",
        "docker run -d --name well --network none --tmpfs /t:mode=1777 --health-cmd 'test ! -e /t/ill' --health-interval 2s \
           --health-retries 1 $B sleep 100000
         soon '[ \"$(docker inspect -f {{.State.Health.Status}} well)\" = healthy ]'
         docker exec well touch /t/ill
         soon '[ \"$(docker inspect -f {{.State.Health.Status}} well)\" = unhealthy ]'
         docker rm -f well",
    );
    rows.row(
        "restart policies are followed",
        "docker run -d --name failing --network none --restart on-failure:2 $B sh -c 'exit 3'
         docker run -d --name steady --network none --restart unless-stopped $B sleep 1
         soon '[ \"$(docker inspect -f \"{{.RestartCount}} {{.State.Status}}\" failing)\" = \"2 exited\" ]'
         soon '[ \"$(docker inspect -f {{.RestartCount}} steady)\" -gt 0 ]'
         docker stop steady
         same \"$(docker inspect -f '{{.State.Running}}' steady)\" false
         docker rm failing steady",
    );
    rows.row(
        "what is not used is removed",
        "docker rm -f web
         docker system prune -af --volumes > /dev/null
         same \"$(docker ps -aq)\" ''
         has \"$(docker system df)\" Images",
    );
}

fn compose(rows: &mut Rows) {
    rows.row(
        "a Compose project of several services comes up",
        "docker load -q -i /usr/lib/berth/images/*busybox*.tar
         mkdir -p /tmp/app
         cd /tmp/app
         cat > compose.yaml <<END
services:
  web:
    build:
      dockerfile_inline: |
        FROM $B
        COPY page /srv/index.html
    command: httpd -f -v -p 8080 -h /srv
    stop_grace_period: 1s
    ports: [\"8090:8080\"]
    depends_on:
      db: { condition: service_healthy }
    networks: [outside, between]
  db:
    image: $B
    user: \"0\"
    command: sh -c 'echo db is up; touch /data/up; exec sleep 100000'
    volumes: [\"data:/data\"]
    stop_grace_period: 1s
    healthcheck:
      test: [\"CMD\", \"test\", \"-e\", \"/data/up\"]
      interval: 60s
      start_interval: 1s
      start_period: 120s
    networks: [between]
    secrets: [word]
networks:
  outside:
  between: { internal: true }
volumes:
  data:
secrets:
  word: { file: ./word }
END
         echo composed > page; echo hidden > word
         docker compose up -d --wait --build
         same \"$(wget -qO- 127.0.0.1:8090)\" composed",
    );
    rows.row(
        "its services are listed, log, and are entered",
        "cd /tmp/app
         has \"$(docker compose ps)\" '(healthy)'
         has \"$(docker compose logs db)\" 'db is up'
         same \"$(docker compose exec -T db cat /run/secrets/word)\" hidden
         has \"$(docker compose ls)\" app",
    );
    rows.row(
        "its services are multiplied and changed",
        "cd /tmp/app
         sed -i 's/8090/8091/' compose.yaml
         docker compose up -d --wait --scale db=2
         same \"$(docker compose ps -q db | wc -l | tr -d ' ')\" 2
         same \"$(wget -qO- 127.0.0.1:8091)\" composed",
    );
    rows.row(
        "it goes down and leaves nothing",
        "cd /tmp/app
         docker compose down -v
         same \"$(docker ps -aq)$(docker volume ls -q)\" ''
         not docker network inspect app_between",
    );
}
