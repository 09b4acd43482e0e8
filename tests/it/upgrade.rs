//! A newer program takes the place of the running one, and nobody on the wire notices.

use std::time::Duration;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

/// Everything at once, across swaps and programs that are broken. `scripts/upgrade_load.sh` makes it a long run with figures.
#[tokio::test]
async fn swaps_under_load_lose_no_request_and_refuse_no_connection() {
    let origin = Origin::named("whole").await;
    origin.on("/ws", Answer::websocket());
    origin.on("/events", Answer::events(&["one", "two"]));
    origin.on("/long", Answer::held(&["begin ", "end"]));
    let gateway = Gateway::before(&origin).swappable().routes(ROUTE).await;
    let kept = Load::start(&gateway, 4, "/", "whole");
    let fresh = Load::of(2, &gateway.get("/").header("Connection", "close"), "whole");
    let multiplexed = Load2::start(gateway.port(), 2, "/", "whole");
    let tunnel = gateway.through(&TlsClient::careless()).await;
    let tls = Load::of(2, &tunnel.get("/"), "whole");
    let tls_fresh = Load::of(1, &tunnel.get("/").header("Connection", "close"), "whole");
    let tunnel2 = gateway.through(&TlsClient::careless().offers(&["h2"])).await;
    let tls_multiplexed = Load2::start(tunnel2.port(), 1, "/", "whole");
    let mut socket = gateway.websocket("/ws").await;
    let mut events = gateway.sse("/events").await;
    assert_eq!(events.next().await.expect("an event").0, "one");
    let (_, mut download, left) = gateway.get("/long").open().await;

    let swaps = std::env::var("GOMA_TEST_SWAPS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for round in 0..swaps {
        kept.goes_on(if swaps > 3 { 5_000 } else { 50 }).await;
        let before = gateway.pid();
        if round % 3 == 1 {
            gateway.program_is("echo this is not it >&2; exit 7");
            let output = gateway.upgrade().await;
            assert_eq!((output.code, gateway.pid()), (Some(1), before), "{}", output.all());
            gateway.program_is_real();
        }
        let output = gateway.upgrade_with(&["--no-wait"]).await;
        assert!(output.succeeded(), "{}", output.all());
        assert_ne!(gateway.pid(), before);
        println!("{}", output.stdout.trim_end());
        socket.echoes("across").await;
    }
    kept.goes_on(50).await;
    origin.release();
    origin.release();
    assert_eq!(events.next().await.expect("an event").0, "two");
    assert_eq!(download.wire.body(left).await.expect("a whole body").0, "begin end");
    socket.close(1000).await;
    assert_eq!(socket.hear().await, Frame::Close(1000));
    for (about, tally) in [
        ("kept connections", kept.stop().await),
        ("new connections", fresh.stop().await),
        ("HTTP/2", multiplexed.stop().await),
        ("TLS, kept connections", tls.stop().await),
        ("TLS, new connections", tls_fresh.stop().await),
        ("TLS, HTTP/2", tls_multiplexed.stop().await),
    ] {
        println!("{about}: {} requests, {} failed, {} refused", tally.of(200), tally.failures.len(), tally.refused);
        tally.is_clean(&[200]);
        assert!(tally.refused == 0 && tally.of(200) > 0, "{about}: {tally:?}");
    }
}

#[tokio::test]
async fn the_receipt_counts_every_request_and_the_old_process_ends() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).swappable().routes(ROUTE).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").header("Connection", "close").await.status, 200);
    }
    let old = gateway.pid();
    let output = gateway.upgrade().await;
    assert!(output.succeeded(), "{}", output.all());
    let line = |start: String| output.stdout.lines().find(|line| line.starts_with(&start)).map(str::to_owned);
    assert!(line(format!("{old}: starting ")).is_some(), "{}", output.stdout);
    let receipt = output.stdout.lines().find(|line| line.ends_with(" lost")).expect("a receipt");
    // The readiness checks of the start are requests, too.
    let figures: Vec<u64> = receipt.split([' ', ':']).filter_map(|word| word.parse().ok()).collect();
    assert!(figures[1] > 5 && figures[1] == figures[2] && figures[3] == 0, "{receipt}");
    assert!(output.stdout.trim_end().ends_with("0 lost, 0 running, 0 streams"), "the new process: {}", output.stdout);
    gateway.ends(old).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.counts("goma_edge_upgrades_total{result=\"succeeded\"} 1").await;
    gateway.sigterm();
    gateway.ends(gateway.pid()).await;
}

#[tokio::test]
async fn sessions_of_tls_are_resumed_by_the_processes_that_follow() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).swappable().routes(ROUTE).await;
    let (new, old) = (TlsClient::careless(), TlsClient::careless().old());
    for client in [&new, &old] {
        assert!(!client.shakes(gateway.secure_port()).await.resumed);
    }
    for generation in 1..=2 {
        assert!(gateway.upgrade_with(&["--no-wait"]).await.succeeded());
        for client in [&new, &old] {
            let shaken = client.shakes(gateway.secure_port()).await;
            assert!(shaken.resumed, "{:?} in generation {generation}", shaken.version);
        }
        gateway.counts(r#"goma_edge_tls_handshakes_total{result="resumed"} 2"#).await;
        gateway.counts(r#"goma_edge_tls_handshakes_total{result="full"} 0"#).await;
    }
}

#[tokio::test]
async fn a_program_that_does_not_come_to_serve_changes_nothing() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).gateway("upgrade: {timeout: 1s}").swappable().routes(ROUTE).await;
    let old = gateway.pid();
    for (program, why) in [
        ("echo no such library >&2; exit 127", "no such library"),
        ("kill -SEGV $$", "signal: 11"),
        ("exec sleep 60", "not ready within 1s"),
        ("exec cat >/dev/null", "not ready within 1s"),
    ] {
        gateway.program_is(program);
        let output = gateway.upgrade().await;
        assert_eq!(output.code, Some(1), "{program}");
        assert!(output.stderr.contains("serves on") && output.stderr.contains(why), "{program}: {}", output.all());
        assert_eq!(gateway.get("/").await.status, 200, "{program}");
    }
    gateway.logs("no such library").await;
    gateway.counts("goma_edge_upgrades_total{result=\"failed\"} 4").await;

    gateway.program_is_real();
    gateway.write("goma.yml", &document("", "- {name: x, path: /, target: ORIGIN, middlewares: [nowhere]}", ""));
    let output = gateway.upgrade().await;
    assert!(output.code == Some(1) && output.stderr.contains("nowhere"), "a bad configuration: {}", output.all());
    std::fs::remove_file(gateway.file("goma")).expect("a file");
    let output = gateway.upgrade().await;
    assert!(output.code == Some(1) && output.stderr.contains("No such file"), "no program: {}", output.all());
    assert_eq!(gateway.get("/").await.status, 200);

    gateway.program_is_real();
    gateway.write("goma.yml", &document("", ROUTE, ""));
    assert!(gateway.upgrade().await.succeeded(), "and it recovers");
    gateway.ends(old).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn the_signal_does_the_same_with_the_new_configuration() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).swappable().env("GOMA_LOG_LEVEL", "info").routes(ROUTE).await;
    let old = gateway.pid();
    gateway.write("goma.yml", &document("", "- {name: r, path: /, target: ORIGIN/new}", ""));
    gateway.signal("USR2");
    let line = gateway.logs("Replaced; draining").await;
    let pid = line.split("successor=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    gateway.is_now(pid.unwrap_or_else(|| panic!("no process in {line}")));
    gateway.ends(old).await;
    gateway.get("/").await;
    assert_eq!(origin.last().target, "/new/");
    gateway.logs("Took over").await;
}

#[tokio::test]
async fn one_at_a_time_and_a_stop_ends_it() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).swappable().routes(ROUTE).await;
    gateway.program_is("touch started; exec sleep 60");
    let pid = gateway.pid().to_string();
    let first = tokio::spawn(async move { goma(&["upgrade", "--pid", &pid]).await });
    eventually("it starts", async || gateway.file("started").exists().then_some(())).await;
    let second = gateway.upgrade().await;
    assert!(second.code == Some(1) && second.stderr.contains("under way"), "{}", second.all());
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().await, Some(0));
    let output = first.await.expect("it ends");
    assert!(output.code == Some(1) && output.stderr.contains("given up"), "{}", output.all());
}

#[tokio::test]
async fn as_many_generations_drain_as_are_allowed() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let gateway = Gateway::before(&origin).swappable().routes(ROUTE).await;
    let mut sockets = Vec::new();
    for generation in 1..=5 {
        sockets.push(gateway.websocket("/ws").await);
        let output = gateway.upgrade_with(&["--no-wait"]).await;
        assert_eq!(output.succeeded(), generation < 5, "{generation}: {}", output.all());
    }
    for socket in &mut sockets {
        socket.echoes("still there").await;
    }
    sockets.swap_remove(1).close(1000).await;
    eventually("there is room again", async || gateway.upgrade_with(&["--no-wait"]).await.succeeded().then_some(()))
        .await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_stream_is_cut_at_the_deadline_and_counted_as_one() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let gateway = Gateway::before(&origin).gateway("upgrade: {grace: 1s}").swappable().routes(ROUTE).await;
    let mut socket = gateway.websocket("/ws").await;
    socket.echoes("hello").await;
    gateway.counts("goma_edge_streams{kind=\"websocket\"} 1").await;
    let begin = std::time::Instant::now();
    let output = gateway.upgrade().await;
    assert!(begin.elapsed() > Duration::from_millis(900));
    assert!(output.stdout.contains("0 lost, 1 streams cut at the deadline"), "{}", output.all());
    assert_eq!(socket.hear().await, Frame::End);
}
