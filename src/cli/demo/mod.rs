//! `goma demo`: a gateway with small backends in the same process, and curl lines to try it with.
//!
//! The configuration is `conf/demo.yml` with the addresses of the backends filled in, in a temporary folder, so that it can
//! be edited and reloaded. Everything else is the real server.

mod backend;

use std::fs::DirBuilder;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};

use goma_edge::config::{self, Env, Source, expand};
use goma_edge::server;

use super::say;

/// Options of `demo`.
#[derive(clap::Args)]
pub struct Options {
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = PORT)]
    port: u16,
}

const CONFIG: &str = include_str!("../../../conf/demo.yml");

/// The backends: names, and the variables of the configuration that stand for their addresses.
const BACKENDS: [(&str, &str); 3] = [("blue", "DEMO_BLUE"), ("green", "DEMO_GREEN"), ("canary", "DEMO_CANARY")];

/// Runs the demo until Ctrl-C.
pub fn run(options: &Options) -> Result<ExitCode> {
    let port = options.port;
    // Found out before anything is promised; the gateway binds it anew.
    drop(TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port} (choose another with --port)"))?);
    let mut addresses = Vec::new();
    let mut listeners = Vec::new();
    for (name, variable) in BACKENDS {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for a backend")?;
        addresses.push((variable.to_owned(), listener.local_addr()?.to_string()));
        listeners.push((name, listener));
    }
    let folder = Folder::new()?;
    let file = folder.0.join("demo.yml");
    let (text, _) = expand::file("demo.yml", CONFIG, &addresses.into_iter().collect());
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    backend::start(listeners)?;
    say(&guide(port, &file));
    serve(port, file)?;
    Ok(ExitCode::SUCCESS)
}

fn serve(port: u16, file: PathBuf) -> Result<()> {
    let source = Source { path: Some(file), env: env(port) };
    let loaded = config::load(&source).map_err(|report| anyhow!("{report}"))?;
    server::run(source, loaded)
}

/// The environment without Goma's variables, which would change the demo, and with the port.
fn env(port: u16) -> Env {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let others = variables.filter(|(name, _)| !name.starts_with("GOMA_"));
    let web = ("GOMA_ENTRYPOINT_WEB_ADDRESS".to_owned(), format!("127.0.0.1:{port}"));
    let secure =
        secure_port(port).map(|port| ("GOMA_ENTRYPOINT_WEB_SECURE_ADDRESS".to_owned(), format!("127.0.0.1:{port}")));
    others.chain([web]).chain(secure).collect()
}

/// A port that is free, unless both can be the usual ones: nobody chooses this one by an option.
fn secure_port(port: u16) -> Option<u16> {
    if port == PORT && TcpListener::bind(("127.0.0.1", SECURE_PORT)).is_ok() {
        return None;
    }
    Some(TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port())
}

/// The usual port, also in the configuration.
const PORT: u16 = 8080;
/// The port of `webSecure` in the configuration.
const SECURE_PORT: u16 = 8443;

/// A folder of ours alone, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("goma-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the temporary folder is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn guide(port: u16, file: &Path) -> String {
    let (at, file, pid) = (format!("http://127.0.0.1:{port}"), file.display(), std::process::id());
    format!(
        "\
A gateway on {at}, with the backends blue, green and canary behind it.
Its configuration, with comments: {file}

Two backends take turns:
  curl {at}/balance
  curl {at}/balance

One gets nine of ten requests:
  for i in 1 2 3 4 5 6 7 8 9 10; do curl -s {at}/weighted | head -1; done

The backend sees another path:
  curl '{at}/api/v1/users/7?full=1'

A header leads to the canary:
  curl {at}/shop
  curl -H 'X-Canary: yes' {at}/shop

A middleware refuses, another sets headers:
  curl -i {at}/files/secret/plan.txt
  curl -i {at}/files/open/plan.txt

A stream arrives piece by piece:
  curl -N {at}/events

A route is closed for maintenance; the file opens it again, and no request is lost:
  curl -i {at}/closed
  sed -i 's/enabled: true # closed/enabled: false/' {file} && kill -HUP {pid}
  curl -i {at}/closed

Why does a request go where it goes?
  goma config explain -c {file} -H 'X-Canary: yes' GET {at}/shop

The gateway's own endpoints:
  curl {at}/healthz
  curl {at}/metrics

Ctrl-C ends the demo.

"
    )
}
