//! The `goma` command line, run to its end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::PATIENCE;

/// What a run of the binary left behind.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `goma` with these arguments in a folder without configuration.
pub async fn goma(arguments: &[&str]) -> Output {
    goma_in(&std::env::temp_dir(), &[], arguments).await
}

/// Runs `goma` in this folder with these variables, and without any `GOMA_` of ours.
pub async fn goma_in(folder: &Path, env: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = binary();
    command.current_dir(folder).args(arguments).envs(env.iter().copied());
    let run = tokio::task::spawn_blocking(move || run(command));
    run.await.expect("the run does not panic")
}

/// Where the binary under test stands.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_goma");

/// The binary under test in a clean environment.
pub fn binary() -> Command {
    by_name(Path::new(PROGRAM))
}

/// The same, called by another name.
pub fn by_name(name: &Path) -> Command {
    let mut command = Command::new(name);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("GOMA_") || ours.starts_with("VAULT_") || ours == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command) -> Output {
    let mut child = command.spawn().expect("the binary starts");
    let deadline = Instant::now() + PATIENCE;
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = read(child.stderr.take().map(|stream| Box::new(stream) as _));
    let code = loop {
        match child.try_wait().expect("a child can be asked") {
            Some(status) => break status.code(),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{command:?} did not end: {}{}", stdout.join().expect("read"), stderr.join().expect("read"));
            }
            None => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    Output { code, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") }
}
