//! An authority's OCSP responder: the one of OpenSSL, in a folder of its own.
//!
//! ```ignore
//! let authority = Authority::new();
//! let responder = Responder::of(&authority).knows(1).revoked(2).start().await;
//! let it = authority.certify_asking(&["a.test"], 1, &responder.url());
//! ```

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::time::timeout;

use super::PATIENCE;
use super::tls::{Authority, Identity};

/// A responder that can be asked, over HTTP or at once.
pub struct Responder {
    folder: TempDir,
    index: String,
    port: u16,
    running: Option<Child>,
}

impl Responder {
    /// Speaks for this authority with its own key. Knows no certificate yet.
    pub fn of(authority: &Authority) -> Responder {
        Responder::signing(authority, &Identity { certificate: authority.pem(), key: authority.key() })
    }

    /// Speaks for this authority with somebody's key.
    pub fn signing(authority: &Authority, signer: &Identity) -> Responder {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in
            [("ca.pem", &authority.pem()), ("signer.pem", &signer.certificate), ("signer.key", &signer.key)]
        {
            fs::write(folder.path().join(name), text).expect("a writable folder");
        }
        Responder { folder, index: String::new(), port: 0, running: None }
    }

    /// A certificate with this number counts.
    pub fn knows(mut self, serial: u8) -> Responder {
        self.index += &format!("V\t401231235959Z\t\t{serial:02X}\tunknown\t/CN={serial}\n");
        self
    }

    /// A certificate with this number was taken back.
    pub fn revoked(mut self, serial: u8) -> Responder {
        self.index += &format!("R\t401231235959Z\t250101000000Z\t{serial:02X}\tunknown\t/CN={serial}\n");
        self
    }

    /// Takes questions from now on.
    pub async fn start(mut self) -> Responder {
        let mut command = self.command();
        command.args(["-port", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = command.spawn().expect("openssl (scripts/setup.sh test installs it)");
        // A connection that asks nothing would keep it from all others: its word has to do.
        let mut lines = BufReader::new(running.stdout.take().expect("piped")).lines();
        self.running = Some(running);
        let said = tokio::task::spawn_blocking(move || lines.find_map(|line| port(&line.ok()?)));
        self.port = timeout(PATIENCE, said).await.expect("in time").expect("no panic").expect("a port");
        self
    }

    /// Where it takes them.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// What it says of a certificate, in DER form.
    pub fn says_of(&self, it: &Identity) -> Vec<u8> {
        let at = |name: &str| -> PathBuf { self.folder.path().join(name) };
        fs::write(at("leaf.pem"), &it.certificate).expect("a writable folder");
        let mut ask = Command::new("openssl");
        ask.arg("ocsp")
            .arg("-issuer")
            .arg(at("ca.pem"))
            .arg("-cert")
            .arg(at("leaf.pem"))
            .arg("-reqout")
            .arg(at("q.der"));
        runs(ask.arg("-no_nonce"));
        runs(self.command().arg("-reqin").arg(at("q.der")).arg("-respout").arg(at("a.der")));
        fs::read(at("a.der")).expect("an answer")
    }

    fn command(&self) -> Command {
        fs::write(self.folder.path().join("index.txt"), &self.index).expect("a writable folder");
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.args(["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "signer.pem", "-rkey", "signer.key"]);
        command.args(["-nmin", "60"]);
        command
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

/// Of `ACCEPT [::]:12345 PID=1`.
fn port(line: &str) -> Option<u16> {
    line.strip_prefix("ACCEPT ")?.split(' ').next()?.rsplit(':').next()?.parse().ok()
}

fn runs(command: &mut Command) {
    let output = command.output().expect("openssl (scripts/setup.sh test installs it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `openssl s_client -status` says of a server.
pub async fn s_client(port: u16, name: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-status", "-connect", &format!("127.0.0.1:{port}"), "-servername", name]);
    command.stdin(Stdio::null());
    let asked = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = asked.expect("openssl (scripts/setup.sh test installs it)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
