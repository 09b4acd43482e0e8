//! `goma demo` keeps what it prints.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::*;

/// A running demo.
struct Demo {
    child: Child,
    port: u16,
    guide: String,
}

impl Demo {
    async fn start() -> Demo {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_goma"));
        command.args(["demo", "--port", &port.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut guide = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            guide += &format!("{line}\n");
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        let demo = Demo { child, port, guide };
        eventually("the demo listens", async || demo.get("/healthz").attempt().await.ok()).await;
        demo
    }

    fn get(&self, target: &str) -> Request {
        Request::new(self.port, "GET", target)
    }

    async fn answerer(&self, request: Request) -> String {
        let reply = request.await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text().split(' ').next().unwrap_or_default().to_owned()
    }

    /// The lines of the guide that begin so.
    fn lines(&self, start: &str) -> Vec<&str> {
        self.guide.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.starts_with(start)).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Asked first, so that it removes its folder.
        if let Ok(None) = self.child.try_wait() {
            shell(&format!("kill -INT {}", self.child.id()));
            let deadline = Instant::now() + Duration::from_secs(2);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(line: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_newcomer_sees_balancing_rewriting_a_canary_maintenance_a_refusal_and_a_reload() {
    let demo = Demo::start().await;
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(demo.answerer(demo.get("/balance")).await);
    }
    assert_eq!((turns[0] == turns[2], turns[1] == turns[3], turns[0] != turns[1]), (true, true, true), "{turns:?}");
    let rewritten = demo.get("/api/v1/users/7?full=1").await.text();
    assert!(rewritten.starts_with("blue got GET /internal/users/7?full=1\n"), "{rewritten}");
    assert_eq!(demo.answerer(demo.get("/shop")).await, "blue");
    assert_eq!(demo.answerer(demo.get("/shop").header("X-Canary", "yes")).await, "canary");
    let refused = demo.get("/files/secret/plan.txt").await;
    assert_eq!((refused.status, refused.header("X-Served-By")), (403, Some("files")));
    assert_eq!(demo.get("/files/open/plan.txt").await.header("X-Served-By"), Some("files"));

    assert_eq!(demo.get("/closed").await.status, 503);
    assert!(shell(demo.lines("sed").first().expect("a line that edits and reloads")), "{}", demo.guide);
    eventually("the reload opens the route", async || (demo.get("/closed").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn every_curl_line_of_the_guide_works() {
    let demo = Demo::start().await;
    let lines = demo.lines("curl");
    assert!(lines.len() >= 10, "{}", demo.guide);
    for line in lines.iter().filter(|line| !line.contains("/events")) {
        let known = line.replace("curl ", "curl -s -o /dev/null -w '%{http_code}' ");
        let status = Command::new("sh").args(["-c", &known]).output().expect("a shell");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let expected = match () {
            () if line.contains("secret") => "403",
            () if line.contains("closed") => "503",
            () => "200",
        };
        assert_eq!(status, expected, "{line}");
    }
    let file = demo.guide.lines().find_map(|line| line.strip_prefix("Its configuration, with comments: "));
    let file = file.expect("the guide names the file");
    let explained = goma(&["config", "explain", "-c", file, "-H", "X-Canary: yes", "GET", "/shop"]).await;
    assert!(explained.stdout.contains("exclusive, and its rules hold"), "{}", explained.all());
}

#[tokio::test]
async fn ctrl_c_ends_the_demo_at_once_and_leaves_nothing() {
    let mut demo = Demo::start().await;
    let file = demo.lines("sed")[0].split(' ').find(|word| word.ends_with("demo.yml")).expect("a path").to_owned();
    let (_, mut stream, _) = demo.get("/events").open().await;
    let began = Instant::now();
    assert!(shell(&format!("kill -INT {}", demo.child.id())));
    let ended = eventually("the demo ends", || std::future::ready(demo.child.try_wait().expect("a child"))).await;
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    assert!(ended.success(), "{ended}");
    assert!(!Path::new(&file).exists(), "{file} is still there");
    // The open stream is cut.
    let _ = stream.wire.rest().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_at_once() {
    let taken = listen();
    let port = taken.local_addr().expect("an address").port().to_string();
    let end = goma(&["demo", "--port", &port]).await;
    assert_eq!(end.code, Some(1), "{}", end.all());
    assert!(end.stderr.contains("--port") && end.stdout.is_empty(), "{}", end.all());
}
