//! Connections: to one server, to the master that Sentinels name, or to a Cluster.

use ::redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, TlsCertificates, Value,
};
use tokio::time::timeout;

use super::settings::{Address, Settings, Topology};

/// A connection that many requests share.
#[derive(Clone)]
pub enum Link {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a Cluster.
    Many(ClusterConnection),
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Link::One(one) => one.req_packed_command(cmd),
            Link::Many(many) => many.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Link::One(one) => one.req_packed_commands(pipeline, offset, count),
            Link::Many(many) => many.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Link::One(one) => one.get_db(),
            Link::Many(many) => many.get_db(),
        }
    }
}

/// Connects. The caller bounds the time.
///
/// # Errors
/// A sentence for the log, without secrets.
pub async fn connect(settings: &Settings) -> Result<Link, String> {
    match &settings.topology {
        Topology::Standalone(address) => Ok(Link::One(one(&client(settings, address)?, settings).await?)),
        Topology::Sentinel { .. } => Ok(Link::One(one(&master(settings).await?, settings).await?)),
        Topology::Cluster(nodes) => {
            let nodes: Result<Vec<ConnectionInfo>, String> = nodes.iter().map(|node| info(settings, node)).collect();
            let mut builder = ClusterClient::builder(nodes?)
                .connection_timeout(settings.connect_timeout)
                .response_timeout(settings.connect_timeout.max(settings.timeout))
                .retries(2);
            if let Some(certificates) = certificates(settings) {
                builder = builder.certs(certificates);
            }
            let client = builder.build().map_err(told)?;
            client.get_async_connection().await.map(Link::Many).map_err(told)
        }
    }
}

/// A connection for subscriptions. Any node of a Cluster will do: messages reach all of them.
///
/// # Errors
/// Like [`connect`].
pub async fn subscriber(settings: &Settings) -> Result<PubSub, String> {
    let client = match &settings.topology {
        Topology::Standalone(address) => client(settings, address)?,
        Topology::Sentinel { .. } => master(settings).await?,
        Topology::Cluster(nodes) => {
            let mut last = "no nodes".to_owned();
            for node in nodes {
                match timeout(settings.connect_timeout, client(settings, node)?.get_async_pubsub()).await {
                    Ok(Ok(subscriber)) => return Ok(subscriber),
                    Ok(Err(error)) => last = told(error),
                    Err(_) => last = format!("no connection to {node} in time"),
                }
            }
            return Err(last);
        }
    };
    client.get_async_pubsub().await.map_err(told)
}

/// The server that the Sentinels name as master, and that says so itself.
async fn master(settings: &Settings) -> Result<Client, String> {
    let Topology::Sentinel { nodes, master, username, password } = &settings.topology else {
        return Err("there are no Sentinels".to_owned());
    };
    let mut last = "no Sentinels".to_owned();
    for node in nodes {
        // One that hangs must not use up the time of the others.
        let share = settings.connect_timeout / (u32::try_from(nodes.len()).unwrap_or(1) + 1);
        let ask = async {
            let login = RedisConnectionInfo::default();
            let info = info(settings, node)?.set_redis_settings(authorized(login, username, password));
            let mut sentinel = one(&Client::open(info).map_err(told)?, settings).await?;
            let mut question = ::redis::cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(master.as_str());
            let named: Option<(String, u16)> = question.query_async(&mut sentinel).await.map_err(told)?;
            let (host, port) = named.ok_or_else(|| format!("Sentinel {node} does not know `{master}`"))?;
            let client = client(settings, &Address { host, port })?;
            let mut server = one(&client, settings).await?;
            let role: Vec<Value> = ::redis::cmd("ROLE").query_async(&mut server).await.map_err(told)?;
            let is_master = match role.first() {
                Some(Value::BulkString(role)) => role == b"master",
                Some(Value::SimpleString(role)) => role == "master",
                _ => false,
            };
            if is_master { Ok(client) } else { Err(format!("what Sentinel {node} names is no master (yet)")) }
        };
        match timeout(share, ask).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(why)) => last = why,
            Err(_) => last = format!("no answer by way of Sentinel {node} within {share:?}"),
        }
    }
    Err(last)
}

async fn one(client: &Client, settings: &Settings) -> Result<MultiplexedConnection, String> {
    // Callers bound the answers; the library would count from another moment.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WAITING);
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(told)
}

/// Commands that may wait to be written.
const WAITING: usize = 1024;

fn client(settings: &Settings, address: &Address) -> Result<Client, String> {
    Client::open(info(settings, address)?).map_err(told)
}

/// Where to connect to and as whom.
fn info(settings: &Settings, address: &Address) -> Result<ConnectionInfo, String> {
    let login = RedisConnectionInfo::default().set_db(i64::from(settings.db));
    let login = authorized(login, &settings.username, &settings.password);
    let (host, port) = (address.host.clone(), address.port);
    let plain = ConnectionAddr::Tcp(host.clone(), port).into_connection_info().map_err(told)?;
    let info = match certificates(settings) {
        None => plain,
        Some(certificates) => {
            let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
            let client = Client::build_with_tls(plain.set_addr(addr), certificates).map_err(told)?;
            client.get_connection_info().clone()
        }
    };
    Ok(info.set_redis_settings(login))
}

fn authorized(login: RedisConnectionInfo, username: &str, password: &str) -> RedisConnectionInfo {
    let login = if username.is_empty() { login } else { login.set_username(username) };
    if password.is_empty() { login } else { login.set_password(password) }
}

/// With TLS, what the library needs of it.
fn certificates(settings: &Settings) -> Option<TlsCertificates> {
    let tls = settings.tls.as_ref()?;
    // The library asks for the process's provider.
    pingora_core::tls::install_default_crypto_provider();
    let client_tls = tls.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Some(TlsCertificates { client_tls, root_cert: tls.roots.clone() })
}

fn told(error: RedisError) -> String {
    error.to_string()
}
