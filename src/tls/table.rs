//! The whole of it, as rustls takes it: one configuration for names on which clients are asked for certificates, one for
//! the others.

use std::fmt;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ServerSessionMemoryCache, StoresServerSessions};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};

use super::clients::{ClientAuth, Names};
use super::index::Index;
use super::keeper::Keeper;
use super::pair::{Certificate, Fault};
use super::tickets::{TicketKeys, Ticketer};
use crate::crypto;

/// Settings of an entry point with TLS, beside its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The oldest version spoken.
    pub least: Least,
    /// Protocols offered by ALPN, the most wanted first; empty for none, which means HTTP/1.1.
    pub alpn: Vec<String>,
    /// What is asked of clients; nothing when absent.
    pub clients: Option<ClientAuth>,
    /// Whether the responders that certificates name are asked for what can be stapled.
    pub ask_responders: bool,
}

/// The oldest version of TLS spoken. There is nothing older than 1.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Least {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

impl Least {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Least::Tls12 => &VERSIONS,
            Least::Tls13 => &VERSIONS[..1],
        }
    }
}

/// Everything that a handshake needs. Immutable.
pub struct Table {
    open: Arc<ServerConfig>,
    asking: Option<Arc<ServerConfig>>,
    names: Arc<Names>,
    index: Arc<Index>,
    certificates: Vec<Arc<Certificate>>,
    sessions: Vec<Arc<Sessions>>,
    digest: [u8; 32],
    ask_responders: bool,
}

/// How clients come back without a whole handshake, under one policy for their certificates.
pub struct Sessions {
    /// Tells policies apart; sessions of one are nothing to another.
    policy: [u8; 32],
    tickets: Arc<Ticketer>,
    store: Arc<dyn StoresServerSessions>,
}

impl Sessions {
    fn new(keys: Arc<TicketKeys>, policy: [u8; 32]) -> Sessions {
        let tickets = Arc::new(Ticketer::new(keys, policy));
        Sessions { policy, tickets, store: ServerSessionMemoryCache::new(SESSIONS) }
    }
}

/// Sessions kept for clients that take no tickets, which TLS 1.2 allows.
const SESSIONS: usize = 1024;
/// Tickets that a client of TLS 1.3 gets with each connection, and with each that resumes a session: one for its next.
const TICKETS: usize = 1;
/// Where it asks for so many. RFC 9149.
const MOST_TICKETS: usize = 4;

impl Table {
    /// Compiles settings and certificates. `keeper` gives what the table in force has, where nothing changed.
    ///
    /// # Errors
    /// When the authorities of clients cannot be used.
    pub fn build(
        settings: &Settings,
        index: Index,
        certificates: Vec<Arc<Certificate>>,
        keeper: &Keeper,
    ) -> Result<Table, Fault> {
        let index = Arc::new(index);
        let names = Names::of(settings.clients.as_ref());
        let mut sessions = Vec::new();
        let mut config = |policy: [u8; 32], verifier: Option<Arc<dyn ClientCertVerifier>>| {
            let kept =
                keeper.sessions(policy).unwrap_or_else(|| Arc::new(Sessions::new(keeper.tickets().clone(), policy)));
            sessions.push(kept.clone());
            Arc::new(server_config(settings, index.clone(), verifier, &kept))
        };
        let asking = match &settings.clients {
            Some(clients) => Some(config(clients.digest(), Some(clients.verifier()?))),
            None => None,
        };
        let open = match (&asking, &names) {
            (Some(asking), Names::All) => asking.clone(),
            _ => config([0; 32], None),
        };
        let digest = digest(settings, &certificates);
        let ask_responders = settings.ask_responders;
        Ok(Table { open, asking, names: Arc::new(names), index, certificates, sessions, digest, ask_responders })
    }

    /// The configuration for a client, and whether it asks for a certificate.
    pub fn choose(&self, hello: &ClientHello<'_>) -> (Arc<ServerConfig>, bool) {
        match &self.asking {
            Some(asking) if self.names.hold(hello.server_name()) => (asking.clone(), true),
            _ => (self.open.clone(), false),
        }
    }

    /// Names on which clients are asked for certificates.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Certificates by name.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// All certificates, the default one first.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// Whether the responders of certificates are asked.
    pub fn asks_responders(&self) -> bool {
        self.ask_responders
    }

    pub(super) fn sessions(&self, policy: [u8; 32]) -> Option<&Arc<Sessions>> {
        self.sessions.iter().find(|sessions| sessions.policy == policy)
    }

    /// Whether another table would do the same.
    pub fn is_like(&self, other: &Table) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Table({} certificates)", self.certificates.len())
    }
}

fn server_config(
    settings: &Settings,
    index: Arc<Index>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    sessions: &Sessions,
) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(settings.least.versions())
        .expect("the provider knows TLS 1.2 and 1.3");
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(index);
    config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // All of them are sound; scanners still ask whose order it is.
    config.ignore_client_order = true;
    config.ticketer = sessions.tickets.clone();
    config.session_storage = sessions.store.clone();
    config.send_tls13_tickets = TICKETS;
    config.max_tls13_tickets = MOST_TICKETS;
    config
}

fn digest(settings: &Settings, certificates: &[Arc<Certificate>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([settings.least as u8, u8::from(settings.ask_responders)]);
    hash.update(settings.alpn.join(","));
    hash.update([0]);
    if let Some(clients) = &settings.clients {
        hash.update(clients.digest());
        hash.update(clients.hosts.join(","));
    }
    for certificate in certificates {
        hash.update(certificate.digest);
    }
    hash.finalize().into()
}
