//! The real gateway: `goma server` as a child process with its configuration in a folder of its own.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::builder::{Builder, Words, document};
use super::cli::Output;
use super::client::{Connection, Request};
use super::events::Events;
use super::http2::Http2;
use super::origin::lock;
use super::tls_client::{TlsClient, Tunnel};
use super::websocket::WebSocket;
use super::{eventually, upgrade};

/// A running gateway; it is killed when the story is over, and its log is shown when the story failed.
pub struct Gateway {
    child: Mutex<Child>,
    /// The process that serves.
    serving: AtomicU32,
    port: u16,
    secure: u16,
    folder: TempDir,
    stdout: Captured,
    stderr: Captured,
    words: Words,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The new configuration is in force.
    New,
    /// It is the one that was in force already.
    Same,
    /// The new configuration was refused; the old one stays.
    Old,
}

/// How often the gateway decided on a configuration, the one that it started with included or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloads {
    pub applied: u64,
    pub unchanged: u64,
    pub failed: u64,
}

impl Gateway {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A gateway whose configuration says `ORIGIN` for this origin.
    pub fn before(origin: &impl fmt::Display) -> Builder {
        Builder::default().word("ORIGIN", origin)
    }

    /// A gateway with this configuration file.
    pub async fn with(config: &str) -> Gateway {
        Builder::default().config(config).await
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of `webSecure`.
    pub fn secure_port(&self) -> u16 {
        self.secure
    }

    /// A port behind which this client of TLS reaches `webSecure`.
    pub async fn through(&self, client: &TlsClient) -> Tunnel {
        Tunnel::start(client, self.secure).await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.serving.load(Ordering::Relaxed)
    }

    /// Another process serves in its place.
    pub fn is_now(&self, pid: u32) {
        self.serving.store(pid, Ordering::Relaxed);
    }

    /// The folder with `goma.yml` and the files beside it.
    pub fn config_dir(&self) -> &Path {
        self.folder.path()
    }

    /// A file in that folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub fn post(&self, target: &str) -> Request {
        self.request("POST", target)
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.port, method, target)
    }

    /// A keep-alive connection.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.port).await.expect("the gateway accepts")
    }

    /// Sends exactly these bytes and reads until the gateway closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut connection = self.connect().await;
        // A gateway that refuses early may close before it took everything.
        let _ = connection.wire.send(bytes).await;
        connection.closed().await
    }

    pub async fn h2(&self) -> Http2 {
        Http2::connect(self.port).await
    }

    pub async fn websocket(&self, target: &str) -> WebSocket {
        let opened = WebSocket::open(self.get(target), "websocket").await;
        opened.unwrap_or_else(|reply| panic!("no WebSocket: {reply:?}"))
    }

    pub async fn sse(&self, target: &str) -> Events {
        Events::open(self.get(target).accept("text/event-stream")).await
    }

    pub fn sighup(&self) {
        self.signal("HUP");
    }

    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// Sends the signal of this name.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: no other program is needed.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the gateway can be signalled");
    }

    /// Whether the process is there.
    pub fn runs(&self) -> bool {
        self.exited().is_none()
    }

    /// How it ended, if it did.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().expect("a child can be asked")
    }

    /// Waits until the process is gone; its exit code.
    pub async fn wait_exit(&self) -> Option<i32> {
        eventually("the gateway exits", async || self.exited()).await.code()
    }

    /// Whether a new connection is accepted.
    pub async fn accepts(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }

    /// Waits for the first log line that holds this text.
    pub async fn logs(&self, text: &str) -> String {
        let line = async || self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
        eventually(&format!("a log line with {text:?}"), line).await
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Writes a file into the configuration's folder, with the words of the builder replaced.
    pub fn write(&self, name: &str, text: &str) {
        self.words.write(&self.file(name), text);
    }

    /// Replaces the configuration, sends SIGHUP, and waits until the gateway has decided.
    pub async fn reload_with(&self, config: &str) -> Applied {
        self.write("goma.yml", config);
        self.reload().await
    }

    /// Replaces the routes of a configuration that has nothing else.
    pub async fn reload_routes(&self, routes: &str) -> Applied {
        self.reload_with(&document("", routes, "")).await
    }

    /// Sends SIGHUP and waits until the gateway has decided, which its reload counters tell.
    pub async fn reload(&self) -> Applied {
        let before = self.reloads().await;
        self.sighup();
        self.decides_after(before).await
    }

    /// Waits for the decision on a reload that was asked for after this count.
    pub async fn decides_after(&self, before: Reloads) -> Applied {
        eventually("the reload is decided", async || {
            let now = self.reloads().await;
            match () {
                () if now.failed > before.failed => Some(Applied::Old),
                () if now.applied > before.applied => Some(Applied::New),
                () if now.unchanged > before.unchanged => Some(Applied::Same),
                () => None,
            }
        })
        .await
    }

    /// How many configurations it has decided on, each way.
    pub async fn reloads(&self) -> Reloads {
        let metrics = self.metrics().await;
        let of = |result: &str| {
            let name = format!("goma_edge_reloads_total{{result=\"{result}\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Reloads { applied: of("applied"), unchanged: of("unchanged"), failed: of("failed") }
    }

    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.text()
    }

    /// Waits for the metrics to hold exactly this line: what a request added may come just after its answer.
    pub async fn counts(&self, line: &str) {
        let found = async || self.metrics().await.lines().any(|other| other == line).then_some(());
        eventually(&format!("the metric line {line}"), found).await;
    }
}

impl Gateway {
    /// Takes over a child that was just started.
    pub(super) fn of(mut child: Child, (port, secure): (u16, u16), folder: TempDir, words: Words) -> Gateway {
        let stdout = Captured::from(child.stdout.take().expect("piped"));
        let stderr = Captured::from(child.stderr.take().expect("piped"));
        let serving = AtomicU32::new(child.id());
        Gateway { child: Mutex::new(child), serving, port, secure, folder, stdout, stderr, words }
    }

    /// What it left behind, once it has exited.
    pub(super) async fn end(&self) -> Output {
        let code = self.wait_exit().await;
        self.stdout.finished().await;
        self.stderr.finished().await;
        Output { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
        if self.file(upgrade::PROGRAM).exists() {
            upgrade::end_all(self.folder.path());
        }
        if std::thread::panicking() {
            eprintln!("--- the gateway said ---\n{}{}", self.stdout.text(), self.stderr.text());
        }
    }
}

/// The text of a stream of the child, as it grows.
#[derive(Clone)]
struct Captured(Arc<Mutex<(String, bool)>>);

impl Captured {
    fn from(mut stream: impl Read + Send + 'static) -> Captured {
        let captured = Captured(Arc::default());
        let grows = captured.clone();
        std::thread::spawn(move || {
            let mut block = [0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut block) {
                lock(&grows.0).0.push_str(&String::from_utf8_lossy(&block[..count]));
            }
            lock(&grows.0).1 = true;
        });
        captured
    }

    fn text(&self) -> String {
        lock(&self.0).0.clone()
    }

    async fn finished(&self) {
        eventually("the output ends", async || lock(&self.0).1.then_some(())).await;
    }
}
