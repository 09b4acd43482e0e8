//! Pingora's description of a connection to a backend.
//!
//! Built once for an origin and its transport settings; a request copies it and puts the address in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::L4Connect;
use pingora_core::protocols::TcpKeepalive;
use pingora_core::upstreams::peer::{ALPN, HttpPeer};

use super::dial::{Dial, Socket};
use super::endpoint::{Host, Scheme};
use super::settings::Transport;
use super::tls::TlsIdentity;

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// Ordinary requests.
    Plain,
    /// A request that wants to switch protocols (WebSocket): HTTP/1.1, a connection of its own.
    Upgrade,
}

/// A peer without an address.
pub(super) struct PeerTemplate {
    peer: HttpPeer,
    upgrade_group: u64,
    upgrade_dial: Arc<Dial>,
}

impl PeerTemplate {
    /// `tls` must be there for [`Scheme::Https`].
    pub fn new(scheme: Scheme, host: &Host, tls: Option<&TlsIdentity>, transport: &Transport) -> Self {
        let alpn = match (scheme, transport.http2) {
            (Scheme::H2c, _) => ALPN::H2,
            (Scheme::Https, true) => ALPN::H2H1,
            _ => ALPN::H1,
        };
        let identity = tls.map(|tls| tls.digest);
        let mut peer = HttpPeer::new(UNSET, scheme == Scheme::Https, String::new());
        peer.group_key = group_key(&(&identity, alpn_code(&alpn), PeerKind::Plain));
        let options = &mut peer.options;
        options.alpn = alpn;
        options.connection_timeout = Some(transport.connect_timeout);
        options.idle_timeout = transport.idle_timeout;
        options.tcp_keepalive = Some(KEEPALIVE);
        // One request a connection where a late response closes the connection: see `deadline`.
        options.max_h2_streams = if transport.one_stream { 1 } else { H2_STREAMS };
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        options.h2_connection_window_size = Some(H2_STREAM_WINDOW * H2_STREAMS as u32);
        if let Some(tls) = tls.filter(|_| scheme == Scheme::Https) {
            with_tls(&mut peer, host, tls, transport);
        }
        Self {
            peer,
            upgrade_group: group_key(&(&identity, alpn_code(&ALPN::H1), PeerKind::Upgrade)),
            upgrade_dial: Arc::new(Dial { timeout: transport.connect_timeout, socket: Socket::Yielding }),
        }
    }

    /// The peer at an address.
    pub fn at(&self, address: SocketAddr, kind: PeerKind) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peer.clone());
        peer._address = address.into();
        if kind == PeerKind::Upgrade {
            peer.options.alpn = ALPN::H1;
            peer.options.custom_l4 = Some(self.upgrade_dial.clone());
            peer.group_key = self.upgrade_group;
        }
        peer
    }
}

/// The name to verify is the endpoint's host; rustls takes the text of an IP address as well.
fn with_tls(peer: &mut HttpPeer, host: &Host, tls: &TlsIdentity, transport: &Transport) {
    peer.sni = host.to_string();
    peer.client_cert_key = tls.client.clone();
    let options = &mut peer.options;
    options.verify_cert = tls.verify;
    options.verify_hostname = tls.verify;
    options.ca = tls.roots.clone();
    // Pingora applies this limit to the TCP connection and again to the handshake. The connector of ours keeps
    // the first, so this one is the handshake's.
    options.connection_timeout = transport.tls_handshake_timeout;
    let dial: Arc<dyn L4Connect + Send + Sync> =
        Arc::new(Dial { timeout: transport.connect_timeout, socket: Socket::Direct });
    options.custom_l4 = Some(dial);
}

/// What keeps connections apart that Pingora's own key would mix: it looks at neither CA nor ALPN.
///
/// The same in every process and after every reload.
fn group_key(parts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn alpn_code(alpn: &ALPN) -> u8 {
    alpn.get_max_http_version() * 10 + alpn.get_min_http_version()
}

const UNSET: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
const H2_STREAMS: usize = 100;
/// What a backend may send ahead of a client that does not read, in bytes. The connection has room for that of every stream,
/// so that such a client holds up no other: Pingora's windows are 8 MiB for a stream and for all of them together.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
pub(super) const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(30),
    count: 3,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer;

    use super::super::settings::Tls;
    use super::*;

    fn template(scheme: Scheme, tls: &Tls, transport: &Transport) -> PeerTemplate {
        let identity = TlsIdentity::build(tls).ok().unwrap();
        let tls = (scheme == Scheme::Https).then_some(&identity);
        PeerTemplate::new(scheme, &Host::Name("app".into()), tls, transport)
    }

    fn plain(template: &PeerTemplate) -> Box<HttpPeer> {
        template.at(([10, 0, 0, 1], 80).into(), PeerKind::Plain)
    }

    #[test]
    fn equal_backends_share_connections_and_unequal_ones_do_not() {
        let ca = include_bytes!("testdata/ca.pem").to_vec();
        let verify = Tls::default();
        let skip = Tls { insecure_skip_verify: true, ..Tls::default() };
        let own_ca = Tls { root_cas: Some(ca), ..Tls::default() };
        let h2 = Transport::default();
        let h1 = Transport { http2: false, ..Transport::default() };
        let slow = Transport { connect_timeout: Duration::from_secs(60), ..Transport::default() };
        let hash = |scheme, tls: &Tls, transport: &Transport| plain(&template(scheme, tls, transport)).reuse_hash();
        let rows = [
            hash(Scheme::Http, &verify, &h2),
            hash(Scheme::H2c, &verify, &h2),
            hash(Scheme::Https, &verify, &h2),
            hash(Scheme::Https, &verify, &h1),
            hash(Scheme::Https, &skip, &h2),
            hash(Scheme::Https, &own_ca, &h2),
        ];
        for (i, a) in rows.iter().enumerate() {
            for b in &rows[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(rows[2], hash(Scheme::Https, &verify, &slow), "limits do not matter");
        assert_eq!(rows[0], hash(Scheme::Http, &own_ca, &h1), "no TLS, no difference");
    }

    #[test]
    fn an_upgrade_has_a_connection_of_its_own() {
        for scheme in [Scheme::Http, Scheme::Https, Scheme::H2c] {
            let template = template(scheme, &Tls::default(), &Transport::default());
            let upgrade = template.at(([10, 0, 0, 1], 80).into(), PeerKind::Upgrade);
            assert_ne!(upgrade.reuse_hash(), plain(&template).reuse_hash());
            assert_eq!(upgrade.options.alpn, ALPN::H1);
            assert!(upgrade.options.custom_l4.is_some());
        }
    }

    #[test]
    fn the_handshake_has_its_own_limit() {
        let transport = Transport { tls_handshake_timeout: None, ..Transport::default() };
        let https = plain(&template(Scheme::Https, &Tls::default(), &transport));
        assert_eq!(https.connection_timeout(), None);
        assert_eq!(https.sni, "app");
        let http = plain(&template(Scheme::Http, &Tls::default(), &transport));
        assert_eq!(http.connection_timeout(), Some(Duration::from_secs(5)));
        assert_eq!(http.sni, "");
    }

    #[test]
    fn a_body_may_pause_for_ever() {
        let transport = Transport { one_stream: true, ..Transport::default() };
        let peer = plain(&template(Scheme::Https, &Tls::default(), &transport));
        assert_eq!(peer.options.read_timeout, None);
        assert_eq!(peer.options.max_h2_streams, 1);
    }
}
