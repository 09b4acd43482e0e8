//! A certified OpenID provider (`oidc-provider`, see tests/oidc) as a child process on loopback.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use super::client::Request;
use super::origin::lock;
use super::place;

/// A running provider; shows itself as its issuer.
pub struct OpenId {
    child: Mutex<Child>,
    port: u16,
    settings: String,
}

impl OpenId {
    /// A provider that knows this address to send users back to, whose access tokens last so many seconds.
    pub fn start(redirect: &str, token_secs: u32) -> OpenId {
        install();
        let port = place::free_port();
        let settings = format!(r#"{{"port":{port},"redirect":"{redirect}","ttl":{token_secs}}}"#);
        OpenId { child: Mutex::new(spawn(&settings)), port, settings }
    }

    /// Ends it as a crash would.
    pub fn stop(&self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Comes back on the same port, with everything forgotten.
    pub fn restart(&self) {
        self.stop();
        *lock(&self.child) = spawn(&self.settings);
    }

    /// How many refresh tokens it has redeemed.
    pub async fn refreshed(&self) -> u32 {
        let reply = Request::new(self.port, "GET", "/refreshed").await;
        reply.text().parse().expect("a number")
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for OpenId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://127.0.0.1:{}", self.port)
    }
}

impl Drop for OpenId {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(settings: &str) -> Child {
    let mut command = Command::new("node");
    command.args(["provider.mjs", settings]).current_dir(folder()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("node starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let ready = lines.any(|line| line.is_ok_and(|line| line == "ready"));
    assert!(ready, "the provider does not start");
    // What it says later is nobody's business, but the pipe has to stay open.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Where it is installed, and only once for all tests.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oidc")
}

/// What `scripts/setup.sh test` has done already, unless the tests were started without it.
fn install() {
    static ONCE: Mutex<bool> = Mutex::new(false);
    let mut done = lock(&ONCE);
    if !*done {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let status = Command::new("scripts/oidc.sh").current_dir(root).status().expect("a shell");
        assert!(status.success(), "the provider cannot be installed: run scripts/setup.sh test");
        let script = fs::read(root.join("tests/oidc/provider.mjs")).expect("a readable file");
        assert_eq!(fs::read(folder().join("provider.mjs")).expect("a readable file"), script);
        *done = true;
    }
}
