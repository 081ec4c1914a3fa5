//! A private registry on the developer's machine: Debian's `docker-registry`, with a certificate that
//! no public authority signed.

use crate::tools;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// This machine, seen from a guest on QEMU's user network.
pub const DEVELOPER: &str = "10.0.2.2";

/// Who signs the certificates of a scenario's registries.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of one's own");
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// A registry, as long as this value lives.
pub struct Registry {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// An empty one.
    pub fn start(authority: &Authority) -> Registry {
        Registry::start_with(authority, "")
    }

    /// One that gets from `upstream` what it is asked for.
    pub fn mirror(authority: &Authority, upstream: &Registry) -> Registry {
        let port = upstream.port;
        Registry::start_with(
            authority,
            &format!("proxy: {{ remoteurl: 'https://127.0.0.1:{port}' }}\n"),
        )
    }

    fn start_with(authority: &Authority, more: &str) -> Registry {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().expect("a key");
        let names = [DEVELOPER, "127.0.0.1"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names).expect("addresses");
        params.distinguished_name.push(DnType::CommonName, "a registry");
        let certificate = params.signed_by(&key, &authority.issuer).expect("a certificate");
        for (name, text) in [
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
            ("ca.pem", authority.pem()),
        ] {
            fs::write(path(name), text).expect("written");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let below = folder.path().display();
        let config = format!(
            "version: 0.1\nlog: {{ level: warn }}\n\
             storage: {{ filesystem: {{ rootdirectory: '{below}/data' }} }}\n\
             http:\n  addr: 127.0.0.1:{port}\n  \
             tls: {{ certificate: '{below}/cert.pem', key: '{below}/key.pem' }}\n{more}"
        );
        fs::write(path("config.yml"), config).expect("written");
        let argv = tools(&crate::cache()).registry().expect("docker-registry");
        let child = Command::new(&argv[0])
            .args(&argv[1..])
            .arg("serve")
            .arg(path("config.yml"))
            // Mirrors trust the same authority.
            .env("SSL_CERT_FILE", path("ca.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).expect("a file"))
            .spawn()
            .expect("the registry starts");
        let mut registry = Registry { child, port, _folder: folder };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(registry._folder.path().join("log"));
            let ended = registry.child.try_wait().expect("its state");
            assert!(ended.is_none() && Instant::now() < end, "the registry: {:?}", log());
            thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    /// Its name for guests.
    pub fn name(&self) -> String {
        format!("{DEVELOPER}:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
