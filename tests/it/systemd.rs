//! What the service manager hears and gives; and the unit files. A real systemd is not needed for any of it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

/// The socket that a service manager listens on.
struct Manager {
    socket: Arc<UnixDatagram>,
    _folder: tempfile::TempDir,
    path: String,
}

impl Manager {
    fn start() -> Manager {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Manager { socket: Arc::new(socket), path: path.display().to_string(), _folder: folder }
    }

    /// The next message.
    async fn hears(&self) -> String {
        let socket = self.socket.clone();
        let heard = tokio::task::spawn_blocking(move || {
            let mut text = [0; 4096];
            let length = socket.recv(&mut text).expect("a message in time");
            String::from_utf8_lossy(&text[..length]).into_owned()
        });
        heard.await.expect("no panic")
    }
}

#[tokio::test]
async fn readiness_reload_main_process_and_stop_are_told() {
    let origin = Origin::start().await;
    let manager = Manager::start();
    let gateway = Gateway::before(&origin).swappable().env("NOTIFY_SOCKET", &manager.path).routes(ROUTE).await;
    let ready = manager.hears().await;
    let serving = format!("READY=1\nSTATUS=Serving 1 routes on web 127.0.0.1:{}", gateway.port());
    assert!(ready.starts_with(&serving), "{ready}");
    assert_eq!(gateway.reload_routes(BROKEN).await, Applied::Old);
    assert!(manager.hears().await.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(manager.hears().await.starts_with("READY=1\n"), "a broken file is no reason to be called down");

    gateway.write("goma.yml", &document("", ROUTE, ""));
    let old = gateway.pid();
    assert!(gateway.upgrade().await.succeeded());
    // Said by the old process: of the new one nothing would be taken yet.
    assert_eq!(manager.hears().await, format!("MAINPID={}\n", gateway.pid()));
    assert!(manager.hears().await.starts_with(&serving), "and then the new one speaks");
    gateway.ends(old).await;
    gateway.sigterm();
    let stopping = manager.hears().await;
    assert!(stopping.starts_with("STOPPING=1\n") && stopping.contains("EXTEND_TIMEOUT_USEC=35000000\n"), "{stopping}");
}

const BROKEN: &str = "- {name: r, path: /, target: ORIGIN, middlewares: [nowhere]}";

#[tokio::test]
async fn the_watchdog_is_fed_also_after_an_upgrade() {
    let origin = Origin::start().await;
    let manager = Manager::start();
    let gateway = Gateway::before(&origin)
        .swappable()
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "200000")
        .routes(ROUTE)
        .await;
    while manager.hears().await != "WATCHDOG=1\n" {}
    assert!(gateway.upgrade().await.succeeded());
    while !manager.hears().await.starts_with("MAINPID=") {}
    for _ in 0..3 {
        while manager.hears().await != "WATCHDOG=1\n" {}
    }
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_served_and_handed_on() {
    let origin = Origin::named("whole").await;
    let gateway = Gateway::before(&origin).swappable().activated().routes(ROUTE).await;
    assert_eq!(gateway.get("/").await.text(), "whole");
    let inherited = fs::read_link(format!("/proc/{}/fd/3", gateway.pid())).expect("a descriptor");
    assert!(inherited.to_string_lossy().starts_with("socket:"), "the socket was passed, not made");
    let old = gateway.pid();
    assert!(gateway.upgrade().await.succeeded());
    gateway.ends(old).await;
    assert_eq!(gateway.get("/").await.text(), "whole");
}

#[test]
fn the_unit_files_are_sound_and_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["goma.service", "goma.socket", "goma-activated.service"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(file));
        // There is a program at that path only where the gateway is installed.
        let text = text.expect("a unit file").replace("/usr/local/bin/goma", env!("CARGO_BIN_EXE_goma"));
        fs::write(folder.path().join(file), text).expect("a writable folder");
    }
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").current_dir(folder.path()).args(arguments).output();
        let output = output.expect("systemd-analyze is installed (scripts/setup.sh test)");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    let found = analyze(&["verify", "./goma.service", "./goma.socket", "./goma-activated.service"]);
    assert!(!found.contains("goma"), "{found}");
    // 1.6 and 1.2 of 10 with systemd 252, 0 being the best.
    for (unit, most) in [("./goma.service", "17"), ("./goma-activated.service", "13")] {
        analyze(&["security", "--offline=true", "--no-pager", "--threshold", most, unit]);
    }
}
