use std::sync::Mutex;

use pingora_core::tls::{
    CertificateDer, PrivateKeyDer, RootCertStore, ServerConfig, TlsAcceptor, WebPkiClientVerifier,
    install_default_crypto_provider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::lookup::{DnsSettings, Lookup};
use super::super::settings::{ClientCertificate, Tls};
use super::*;

/// Answers each request by its path, and keeps what it saw.
async fn origin(answer: impl Fn(&str) -> String + Send + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            log.lock().unwrap().push(head);
            let _ = stream.write_all(answer(&target).as_bytes()).await;
        }
    });
    (address, seen)
}

fn reply(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{headers}\r\n")
}

fn probe(url: &str, healthy: &[u16]) -> Probe {
    let lookup = Lookup::new(DnsSettings::default());
    let handle = tokio::runtime::Handle::current();
    let names = Arc::new(Names::new(lookup, Some(handle)));
    Probe {
        url: Endpoint::parse(url).unwrap(),
        settings: HealthSettings { healthy: healthy.to_vec(), ..HealthSettings::default() },
        tls: Arc::new(TlsIdentity::build(&Tls::default()).ok().unwrap()),
        http2: true,
        means: Arc::new(Means::new(names)),
    }
}

async fn check(probe: &Probe, address: SocketAddr) -> std::result::Result<(), String> {
    let target = Target::new(&address.to_string()).unwrap();
    let result = probe.check(&target).await;
    result.map_err(|error| {
        let context = error.context.as_ref().map(|text| text.as_str().to_owned());
        context.unwrap_or_default()
    })
}

#[tokio::test]
async fn the_status_decides() {
    let rows: [(u16, &[u16], bool); 6] = [
        (200, &[], true),
        (399, &[], true),
        (404, &[], false),
        (503, &[], false),
        (503, &[200, 503], true),
        (200, &[204], false),
    ];
    for (status, healthy, expected) in rows {
        let (address, _) = origin(move |_| reply(status, "")).await;
        let probe = probe(&format!("http://{address}/health"), healthy);
        let result = check(&probe, address).await;
        assert_eq!(result.is_ok(), expected, "{status} in {healthy:?}: {result:?}");
    }
}

#[tokio::test]
async fn the_request_is_as_gomas() {
    let (address, seen) = origin(|_| reply(200, "")).await;
    let probe = probe(&format!("http://bob:pa%20ss@{address}/base?x=1/health"), &[]);
    check(&probe, address).await.unwrap();
    let head = seen.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /base?x=1/health HTTP/1.1\r\n"), "{head}");
    for line in [
        format!("Host: {address}\r\n"),
        format!("User-Agent: {USER_AGENT}\r\n"),
        "Authorization: Basic Ym9iOnBhIHNz\r\n".to_owned(),
    ] {
        assert!(head.contains(&line), "{head}");
    }
}

#[tokio::test]
async fn redirects_are_followed_ten_times() {
    let (address, seen) = origin(|target| match target {
        "/health" => reply(302, "Location: sub/../ok?x=1\r\n"),
        "/ok?x=1" => reply(307, "Location: http://localhost:1/never\r\n").replace("307", "200"),
        _ => reply(301, "Location: /loop\r\n"),
    })
    .await;
    let to = |path: &str| probe(&format!("http://{address}{path}"), &[]);
    assert_eq!(check(&to("/health"), address).await, Ok(()));
    let paths: Vec<_> = seen.lock().unwrap().drain(..).collect();
    assert!(paths[1].starts_with("GET /ok?x=1 "), "{paths:?}");
    let endless = check(&to("/loop"), address).await;
    assert_eq!(endless, Err("more than 10 redirects".to_owned()));
    assert_eq!(seen.lock().unwrap().len(), 11);
}

#[tokio::test]
async fn a_redirect_to_another_host_is_resolved() {
    let (elsewhere, seen) = origin(|_| reply(204, "")).await;
    let location = format!("Location: http://localhost:{}/\r\n", elsewhere.port());
    let (address, _) = origin(move |_| reply(302, &location)).await;
    let probe = probe(&format!("http://{address}/"), &[]);
    assert_eq!(check(&probe, address).await, Ok(()));
    let head = seen.lock().unwrap()[0].clone();
    assert!(head.contains(&format!("Host: localhost:{}\r\n", elsewhere.port())));
}

#[tokio::test]
async fn an_interim_response_is_not_the_answer() {
    let (address, _) = origin(|_| format!("HTTP/1.1 103 X\r\n\r\n{}", reply(500, ""))).await;
    let probe = probe(&format!("http://{address}/"), &[]);
    assert_eq!(check(&probe, address).await, Err("status 500".to_owned()));
}

#[test]
fn a_location_is_read_from_where_we_are() {
    let rows = [
        ("https://other/x", "https://other/x"),
        ("//other/x", "http://other/x"),
        ("/x/./y", "http://app:81/x/y"),
        ("../y?b", "http://app:81/y?b"),
        ("y#frag", "http://app:81/a/y"),
        ("?c", "http://app:81/a/b?c"),
        ("", "http://app:81/a/b?q"),
        ("../../../z/..", "http://app:81/"),
    ];
    let base = Endpoint::parse("http://app:81/a/b?q").unwrap();
    for (location, expected) in rows {
        let next = follow(&base, location).unwrap();
        assert_eq!(next.to_string(), expected, "{location}");
    }
    assert!(follow(&base, "ftp://x/").is_none());
}
const CA: &[u8] = include_bytes!("../testdata/ca.pem");
const LEAF: &[u8] = include_bytes!("../testdata/leaf.pem");
const KEY: &[u8] = include_bytes!("../testdata/leaf.key");

fn tls(root_cas: Option<&[u8]>, insecure_skip_verify: bool, client: bool) -> Tls {
    Tls {
        insecure_skip_verify,
        root_cas: root_cas.map(<[u8]>::to_vec),
        client: client.then(|| ClientCertificate { certificates: LEAF.to_vec(), key: KEY.to_vec() }),
    }
}

/// An HTTPS origin for `localhost` and `127.0.0.1` that wants a certificate of its own authority.
async fn secure_origin() -> SocketAddr {
    install_default_crypto_provider();
    let identity = TlsIdentity::build(&tls(Some(CA), false, true)).ok().unwrap();
    let mut roots = RootCertStore::empty();
    for root in identity.roots.as_deref().unwrap() {
        roots.add(CertificateDer::from(root)).unwrap();
    }
    let client = identity.client.unwrap();
    let chain = vec![CertificateDer::from(client.leaf())];
    let key = PrivateKeyDer::try_from(client.key().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(reply(200, "").as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_backend_is_trusted_as_configured() {
    let address = secure_origin().await;
    let rows = [
        ("its authority, our certificate", tls(Some(CA), false, true), "127.0.0.1", true),
        ("by name", tls(Some(CA), false, true), "localhost", true),
        ("another name", tls(Some(CA), false, true), "127.0.0.2", false),
        ("an unknown authority", tls(None, false, true), "127.0.0.1", false),
        ("any authority", tls(None, true, true), "127.0.0.1", true),
        ("any name", tls(None, true, true), "127.0.0.2", true),
        ("no certificate of ours", tls(Some(CA), false, false), "127.0.0.1", false),
    ];
    for (what, tls, host, expected) in rows {
        let mut probe = probe(&format!("https://{host}:{}/", address.port()), &[]);
        probe.tls = Arc::new(TlsIdentity::build(&tls).ok().unwrap());
        let result = check(&probe, address).await;
        assert_eq!(result.is_ok(), expected, "{what}: {result:?}");
    }
}

#[tokio::test]
async fn an_h2c_backend_is_asked_in_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let authority = request.uri().authority().unwrap().as_str();
                let known = authority.starts_with("app.test:") && request.uri().path() == "/health";
                let status = if known { 200 } else { 404 };
                let response = http::Response::builder().status(status).body(()).unwrap();
                respond.send_response(response, true).unwrap();
            }
        }
    });
    let probe = probe(&format!("h2c://app.test:{}/health", address.port()), &[]);
    assert_eq!(check(&probe, address).await, Ok(()));
}
