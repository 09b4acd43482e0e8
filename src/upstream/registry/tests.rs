use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::matching::Match;
use super::super::matching::tests::Request;
use super::super::testing::until;
use super::super::{Outcome, PeerKind, Tried};
use super::*;

fn settings(endpoints: &[&str]) -> Settings {
    let backend = |endpoint: &&str| BackendSettings { endpoint: endpoint.to_string(), ..BackendSettings::default() };
    Settings { name: "shop".into(), backends: endpoints.iter().map(backend).collect(), ..Settings::default() }
}

fn checked(endpoints: &[&str], path: &str) -> Settings {
    Settings { health: Some(HealthSettings { path: path.into(), ..HealthSettings::default() }), ..settings(endpoints) }
}

fn idle() -> Registry {
    Registry::new(DnsSettings::default(), 0, None)
}

fn compile(registry: &Registry, settings: &Settings) -> Arc<Upstream> {
    registry.upstream(settings).unwrap().0
}

#[test]
fn equal_backends_are_one_and_unequal_ones_are_not() {
    let registry = idle();
    let first = compile(&registry, &settings(&["http://APP:80/a", "https://app"]));
    let mut other = settings(&["http://app/b", "https://app:443/x", "h2c://app", "http://app:81"]);
    other.name = "other".into();
    let second = compile(&registry, &other);
    let origin = |upstream: &Upstream, index: usize| upstream.backends()[index].origin.clone();
    assert!(Arc::ptr_eq(&origin(&first, 0), &origin(&second, 0)));
    assert!(Arc::ptr_eq(&origin(&first, 1), &origin(&second, 1)));
    for index in [2, 3] {
        assert!(!Arc::ptr_eq(&origin(&first, 0), &origin(&second, index)));
    }
    assert!(Arc::ptr_eq(&first.backends()[0].template, &second.backends()[0].template));
    other.tls.insecure_skip_verify = true;
    let third = compile(&registry, &other);
    assert!(Arc::ptr_eq(&origin(&first, 0), &origin(&third, 0)));
    assert!(!Arc::ptr_eq(&origin(&first, 1), &origin(&third, 1)));
}

#[test]
fn the_turn_survives_a_reload() {
    let registry = idle();
    let backends = settings(&["http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3"]);
    let pick = |upstream: &Upstream| {
        let pick = upstream.pick(&Request::default(), &Tried::default());
        pick.unwrap().index
    };
    let old = compile(&registry, &backends);
    assert_eq!(pick(&old), 1);
    let new = compile(&registry, &backends);
    drop(old);
    registry.sweep();
    assert_eq!(pick(&new), 2);
    let mut other = backends.clone();
    other.name = "other".into();
    assert_eq!(pick(&compile(&registry, &other)), 1, "each route has its own");
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let registry = idle();
    let upstream = compile(&registry, &checked(&["https://app", "http://b"], "/health"));
    registry.sweep();
    let count = || {
        let known = registry.known.lock().unwrap();
        [known.origins.len(), known.templates.len(), known.checks.len(), known.turns.len(), known.identities.len()]
    };
    assert_eq!(count(), [2, 2, 2, 1, 1]);
    drop(upstream);
    registry.sweep();
    assert_eq!(count(), [0; 5]);
}

#[test]
fn all_errors_are_told_at_once() {
    let registry = idle();
    let mut broken = checked(&["http://", "http://app", "ftp://app", "https://app/x"], "health");
    broken.tls.root_cas = Some(b"no certificate".to_vec());
    let errors = registry.upstream(&broken).err().unwrap();
    let found: Vec<_> = errors.iter().map(|error| (error.backend, error.field)).collect();
    assert_eq!(
        found,
        [(Some(0), "endpoint"), (Some(1), "healthCheck.path"), (Some(2), "endpoint"), (None, "rootCAs"),]
    );
    assert_eq!(errors[1].to_string(), "makes http://apphealth of the endpoint http://app; start the path with a slash");
    let none = registry.upstream(&settings(&[])).err().unwrap();
    assert_eq!(none[0].field, "backends");
}

#[test]
fn harmless_oddities_are_warnings() {
    let registry = idle();
    let mut odd = settings(&["http://bob:secret@app", "http://b"]);
    odd.backends[1].exclusive = true;
    let (_, warnings) = registry.upstream(&odd).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(!warnings.concat().contains("secret"));
    odd.backends[1].matches = vec![Match::parse("ip", "", "equals", "::1").0];
    assert_eq!(registry.upstream(&odd).unwrap().1.len(), 1);
}

#[tokio::test]
async fn a_failed_connection_moves_on_to_the_next_address() {
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    writeln!(hosts, "127.0.0.1 app\n127.0.0.2 app").unwrap();
    let dns = DnsSettings { hosts: hosts.path().to_owned(), ..DnsSettings::default() };
    let registry = Registry::new(dns, 0, Some(Handle::current()));
    let upstream = compile(&registry, &settings(&["http://app:8080"]));
    let mut tried = Tried::default();
    let pick = upstream.pick(&Request::default(), &tried).unwrap();
    let first = pick.backend.peer(pick.backend.address().await.unwrap(), PeerKind::Plain);
    pick.backend.report(first._address.as_inet().unwrap().ip(), Outcome::ConnectFailed);
    tried.add(pick.index);
    assert_eq!(upstream.attempts_limit(), 2);
    let pick = upstream.pick(&Request::default(), &tried).unwrap();
    let second = pick.backend.peer(pick.backend.address().await.unwrap(), PeerKind::Plain);
    assert_ne!(first._address, second._address);
    tried.add(pick.index);
    assert!(upstream.pick(&Request::default(), &tried).is_err());
    assert_eq!(pick.backend.connect_failures(), 1);
}

/// An origin that answers 200 or 503 to everything, as told.
async fn origin() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let healthy = Arc::new(AtomicBool::new(true));
    let state = healthy.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let status = if state.load(Ordering::SeqCst) { 200 } else { 503 };
            let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    (endpoint, healthy)
}

#[tokio::test]
async fn a_backend_that_fails_its_check_gets_nothing_until_it_recovers() {
    let (good, _) = origin().await;
    let (ill, health) = origin().await;
    health.store(false, Ordering::SeqCst);
    let registry = Registry::new(DnsSettings::default(), 0, Some(Handle::current()));
    let mut checked = checked(&[&good, &ill], "/health");
    checked.health.as_mut().unwrap().interval = Duration::ZERO;
    let upstream = compile(&registry, &checked);
    let up = || upstream.backends().iter().map(|b| b.is_up()).collect::<Vec<_>>();
    until("the check to fail", || up() == [true, false]).await;
    assert_eq!(upstream.health()[1], (1, Some(Err("status 503".into()))));

    let mut unchecked = settings(&[&good, &ill]);
    unchecked.name = "unchecked".into();
    let other = compile(&registry, &unchecked);
    assert!(other.health().is_empty());
    for upstream in [&upstream, &other] {
        for _ in 0..4 {
            let pick = upstream.pick(&Request::default(), &Tried::default());
            assert_eq!(pick.unwrap().index, 0);
        }
    }
    let alone = compile(&registry, &settings(&[&ill]));
    assert!(alone.pick(&Request::default(), &Tried::default()).is_ok());

    let reloaded = compile(&registry, &checked);
    assert!(!reloaded.backends()[1].is_up(), "a reload keeps the state");
    drop(upstream);
    health.store(true, Ordering::SeqCst);
    until("the check to pass", || reloaded.backends()[1].is_up()).await;
    let mut seen: Vec<_> =
        (0..4).map(|_| reloaded.pick(&Request::default(), &Tried::default()).unwrap().index).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 1]);
}

#[tokio::test]
async fn a_backend_that_does_not_listen_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let registry = Registry::new(DnsSettings::default(), 0, Some(Handle::current()));
    let upstream = compile(&registry, &checked(&[&endpoint, &endpoint], "/"));
    until("the check to fail", || !upstream.backends()[0].is_up()).await;
    let Some((_, Some(Err(reason)))) = upstream.health().into_iter().next() else {
        panic!("a result");
    };
    assert!(reason.contains("refused"), "{reason}");
    let none = upstream.pick(&Request::default(), &Tried::default());
    assert_eq!(none.err(), Some(super::super::NoBackend::Unavailable));
}
