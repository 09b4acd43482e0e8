//! The yardstick of the benchmark: a bare Pingora proxy that does the same header work as the gateway and nothing else.
//!
//! No routing, no metrics, no log, no gate: what remains is what Pingora itself costs. Compare with
//! `bench.py --cmd bare=target/release/examples/bare_pingora`.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::header;
use pingora_core::modules::http::HttpModules;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Bare {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    async fn upstream_request_filter(&self, session: &mut Session, head: &mut RequestHeader, _: &mut ()) -> Result<()> {
        let client = session.client_addr().and_then(|a| a.as_inet()).map(|a| a.ip().to_string()).unwrap_or_default();
        if let Some(host) = session.get_header(header::HOST).cloned() {
            head.insert_header("X-Forwarded-Host", host)?;
        }
        head.insert_header("X-Forwarded-For", format!("{client}, {client}"))?;
        head.insert_header("X-Real-IP", client)?;
        head.insert_header("X-Forwarded-Proto", "http")?;
        if !head.headers.contains_key(header::ACCEPT_ENCODING) {
            head.insert_header("Accept-Encoding", "gzip")?;
        }
        Ok(())
    }

    async fn response_filter(&self, _: &mut Session, head: &mut ResponseHeader, _: &mut ()) -> Result<()> {
        head.remove_header(&header::SERVER);
        head.insert_header("Proxied-By", "Goma Gateway")?;
        head.insert_header("X-Goma-Request-ID", format!("{:032x}", rand::random::<u128>()))?;
        Ok(())
    }
}

fn main() {
    let target: SocketAddr = "127.0.0.1:19001".parse().expect("an address");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 4096, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = HttpPeer::new(target, false, String::new());
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), Bare { peer });
    service.add_tcp("127.0.0.1:18080");
    server.add_service(service);
    server.run_forever();
}
