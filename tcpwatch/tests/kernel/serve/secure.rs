//! TLS and passwords, with certificates made by `openssl` and asked by `curl`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{TERM, said_no};
use crate::watch::{Watch, namespace};

struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A certificate for 127.0.0.1 that is its own authority.
    fn certificate(&self, name: &str) {
        self.certify(name, &[]);
    }

    /// One of an authority.
    fn certificate_by(&self, authority: &str, name: &str) {
        let [certificate, key] = ["crt", "key"].map(|end| self.path(&format!("{authority}.{end}")));
        let end_entity = ["-addext", "basicConstraints=critical,CA:FALSE"];
        self.certify(name, &[&["-CA", &certificate, "-CAkey", &key][..], &end_entity].concat());
    }

    fn certify(&self, name: &str, more: &[&str]) {
        let [certificate, key] = ["crt", "key"].map(|end| self.path(&format!("{name}.{end}")));
        let subject = format!("/CN={name}");
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "2", "-subj", &subject, "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-keyout", &key, "-out", &certificate])
            .args(more)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn config(&self, text: &str) -> String {
        fs::write(self.path("web.yml"), text).unwrap();
        self.path("web.yml")
    }
}

/// What `curl` gets: the status, 0 if it gets nothing.
fn curl(address: SocketAddr, flags: &[&str]) -> u32 {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .args(flags)
        .arg(format!("https://{address}/healthz"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

fn start(config: &str) -> (Watch, SocketAddr) {
    start_with("https", config)
}

fn start_with(scheme: &str, config: &str) -> (Watch, SocketAddr) {
    let namespace = namespace();
    let flags = ["serve", "--listen", "127.0.0.1:0", "-N", &namespace, "--web-config", config];
    let watch = Watch::start_unattached(&flags);
    let said = watch.said(&format!("metrics at {scheme}://"));
    let address = said.split("://").nth(1).unwrap().trim_end_matches("/metrics");
    (watch, address.parse().unwrap())
}

pub(super) fn passwords() {
    let site = Site::new();
    site.certificate("server");
    let hash = bcrypt::hash("secret", 4).unwrap();
    let config = site.config(&format!(
        "tls_server_config: {{cert_file: server.crt, key_file: server.key, min_version: TLS13}}\nbasic_auth_users: {{alice: {hash}}}\n"
    ));
    let (watch, address) = start(&config);
    let trusted = site.path("server.crt");
    let ask = |more: &[&str]| curl(address, &[&["--cacert", &trusted], more].concat());
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&["--user", "alice:wrong"]), 401);
    assert_eq!(ask(&["--user", "bob:secret"]), 401);
    assert_eq!(ask(&["--user", "alice:secret"]), 200);
    assert_eq!(ask(&["--user", "alice:secret", "--tls-max", "1.2"]), 0, "too old");
    assert_eq!(curl(address, &["--user", "alice:secret"]), 0, "curl does not know the certificate");
    // It is renewed while the agent runs.
    let old = fs::read(&trusted).unwrap();
    site.certificate("server");
    assert_ne!(fs::read(&trusted).unwrap(), old);
    assert_eq!(ask(&["--user", "alice:secret"]), 200);
    fs::write(&trusted, "nonsense").unwrap();
    assert_eq!(curl(address, &["--insecure", "--user", "alice:secret"]), 200, "the last good one");
    watch.signal(TERM);
    assert_eq!(watch.wait().status.code(), Some(0));
}

/// A client that has asked with a password.
fn asks(address: SocketAddr, login: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let login = STANDARD.encode(login);
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn status(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Each check takes a good part of a second; clients that hang up do not have theirs made.
pub(super) fn guesses() {
    const GUESSES: usize = 200;
    let site = Site::new();
    let hash = bcrypt::hash("secret", 11).unwrap();
    let (watch, address) =
        start_with("http", &site.config(&format!("basic_auth_users: {{alice: {hash}}}\n")));
    let threads = || fs::read_dir(format!("/proc/{}/task", watch.id())).unwrap().count();
    let before = threads();
    let mut most = 0;
    for guess in 0..GUESSES {
        drop(asks(address, &format!("alice:{guess}")));
        most = most.max(threads());
    }
    assert_eq!(status(asks(address, "alice:secret")), "200");
    most = most.max(threads());
    assert!(most <= before + 4, "{most} threads, and {before} before");
    // While others wait who do not hang up, who was admitted once is answered at once.
    let guesses: Vec<_> = (0..50).map(|guess| asks(address, &format!("alice:{guess}"))).collect();
    assert_eq!(status(asks(address, "alice:secret")), "200");
    let last = guesses.last().unwrap();
    last.set_nonblocking(true).unwrap();
    let waits = last.peek(&mut [0]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "all guesses were checked before");
    drop(guesses);
    watch.signal(TERM);
    assert_eq!(watch.wait().status.code(), Some(0));
}

pub(super) fn certificates() {
    let site = Site::new();
    for name in ["server", "authority", "other"] {
        site.certificate(name);
    }
    site.certificate_by("authority", "client");
    site.certificate_by("other", "stranger");
    let config = site.config(
        "tls_server_config: {cert_file: server.crt, key_file: server.key, client_auth_type: RequireAndVerifyClientCert, client_ca_file: authority.crt}\n",
    );
    let (watch, address) = start(&config);
    let ask = |name: Option<&str>| {
        let trusted = site.path("server.crt");
        let (certificate, key) = match name {
            Some(name) => (site.path(&format!("{name}.crt")), site.path(&format!("{name}.key"))),
            None => return curl(address, &["--cacert", &trusted]),
        };
        curl(address, &["--cacert", &trusted, "--cert", &certificate, "--key", &key])
    };
    assert_eq!(ask(None), 0);
    assert_eq!(ask(Some("stranger")), 0);
    assert_eq!(ask(Some("client")), 200);
    watch.signal(TERM);
    assert_eq!(watch.wait().status.code(), Some(0));
}

pub(super) fn wrong() {
    let site = Site::new();
    site.certificate("server");
    site.certificate("other");
    let refusal = |text: &str| said_no(&["--web-config", &site.config(text)]);
    let tls = |certificate: &str, key: &str| {
        refusal(&format!("tls_server_config: {{cert_file: {certificate}, key_file: {key}}}"))
    };
    assert!(tls("server.crt", "other.key").contains("do not go together"));
    assert!(tls("server.key", "server.key").contains("no certificate"));
    assert!(tls("none.crt", "server.key").contains("none.crt"));
    assert!(tls("server.crt", "server.crt").contains("private key"));
    let hash = refusal("basic_auth_users: {alice: hunter2}");
    assert!(
        hash.contains("alice") && hash.contains("htpasswd") && !hash.contains("hunter2"),
        "{hash}"
    );
    assert!(refusal("tls_server_confg: {}").contains("tls_server_confg"));
    let missing = said_no(&["--web-config", "/no/such/file"]);
    assert!(missing.contains("/no/such/file"), "{missing}");
    // Passwords are enough for other hosts, TLS alone is not.
    let config = site.config("tls_server_config: {cert_file: server.crt, key_file: server.key}");
    assert!(said_no(&["--listen", "0.0.0.0:0", "--web-config", &config]).contains("--insecure"));
}
