//! Real Redis servers on ports of their own: one alone, with TLS, under Sentinels, or a Cluster.
//!
//! ```ignore
//! let redis = Redis::start().await;
//! let gateway = Gateway::builder().word("REDIS", &redis).gateway("redis: {addr: REDIS}").await;
//! assert_eq!(redis.ask::<Option<String>>(&["GET", "rate:ip:127.0.0.1"]).await, None);
//! ```

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{Authority, eventually, free_port};

/// A running server; it is killed when the story is over.
pub struct Redis {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    password: String,
    plain: Option<u16>,
    running: Option<Child>,
}

impl Redis {
    /// One server without a password.
    pub async fn start() -> Redis {
        Redis::with(&[]).await
    }

    /// One server with further arguments of `redis-server`.
    pub async fn with(arguments: &[&str]) -> Redis {
        let mut redis = Redis::new(arguments);
        redis.run().await;
        redis
    }

    /// One server that asks for a password.
    pub async fn with_password(password: &str) -> Redis {
        let mut redis = Redis::new(&["--requirepass", password]);
        redis.password = password.to_owned();
        redis.run().await;
        redis
    }

    /// One server with TLS, certified by this authority; `clients` must show a certificate of it as well where asked.
    pub async fn with_tls(authority: &Authority, clients: bool) -> Redis {
        let mut redis = Redis::new(&[]);
        let identity = authority.certify(&["127.0.0.1", "localhost"]);
        for (name, text) in
            [("ca.pem", authority.pem()), ("server.pem", identity.certificate), ("server.key", identity.key)]
        {
            std::fs::write(redis.folder.path().join(name), text).expect("a file");
        }
        let plain = free_port();
        let tls = [
            ["--tls-port", &redis.port.to_string()],
            ["--port", &plain.to_string()],
            ["--tls-ca-cert-file", "ca.pem"],
            ["--tls-cert-file", "server.pem"],
            ["--tls-key-file", "server.key"],
            ["--tls-auth-clients", if clients { "yes" } else { "no" }],
        ];
        redis.arguments = tls.concat().into_iter().map(str::to_owned).collect();
        redis.plain = Some(plain);
        redis.run().await;
        redis
    }

    fn new(arguments: &[&str]) -> Redis {
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string()];
        all.extend(arguments.iter().map(ToString::to_string));
        let folder = tempfile::tempdir().expect("a temporary folder");
        Redis { folder, port, arguments: all, password: String::new(), plain: None, running: None }
    }

    /// Starts it, also again after [`stop`](Self::stop), empty.
    pub async fn run(&mut self) {
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(server.expect("redis-server is installed by scripts/setup.sh test"));
        eventually("Redis answers", async || self.try_ask::<String>(&["PING"]).await.ok()).await;
    }

    /// Kills it and all of its connections.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    /// It takes connections and answers nothing any more, until [`resume`](Self::resume).
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.running.as_ref().expect("it runs").id();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "Redis can be signalled");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a command.
    pub async fn ask<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    async fn try_ask<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> ::redis::RedisResult<T> {
        let login = if self.password.is_empty() { String::new() } else { format!(":{}@", self.password) };
        let client = ::redis::Client::open(format!("redis://{login}127.0.0.1:{}/", self.plain.unwrap_or(self.port)))?;
        let patient = ::redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
        let mut words = ::redis::Cmd::new();
        for word in command {
            words.arg(*word);
        }
        words.query_async(&mut connection).await
    }
}

/// As a configuration names it.
impl fmt::Display for Redis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A master named `main`, a replica of it, and a Sentinel that watches them.
pub struct Sentinels {
    pub master: Redis,
    pub replica: Redis,
    pub sentinel: Redis,
}

impl Sentinels {
    pub async fn start() -> Sentinels {
        let master = Redis::start().await;
        let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
        eventually("the replica follows", async || {
            replica.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up").then_some(())
        })
        .await;
        let mut sentinel = Redis::new(&[]);
        let config = format!(
            "port {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n",
            sentinel.port, master.port
        );
        std::fs::write(sentinel.folder.path().join("sentinel.conf"), config).expect("a file");
        let server = Command::new("redis-server")
            .args(["sentinel.conf", "--sentinel"])
            .current_dir(sentinel.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        sentinel.running = Some(server.expect("redis-server is installed by scripts/setup.sh test"));
        eventually("the Sentinel knows the replica", async || {
            let known = sentinel.try_ask::<Vec<::redis::Value>>(&["SENTINEL", "REPLICAS", "main"]).await.ok()?;
            (!known.is_empty()).then_some(())
        })
        .await;
        Sentinels { master, replica, sentinel }
    }
}

/// Three masters that share the slots.
pub struct Cluster(pub Vec<Redis>);

impl Cluster {
    pub async fn start() -> Cluster {
        let mut nodes = Vec::new();
        for range in [("0", "5460"), ("5461", "10922"), ("10923", "16383")] {
            let bus = free_port().to_string();
            let node = Redis::with(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
            node.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]).await;
            nodes.push((node, bus));
        }
        let first = &nodes[0].0;
        for (node, bus) in &nodes[1..] {
            first.ask::<String>(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]).await;
        }
        for (node, _) in &nodes {
            eventually("the cluster is whole", async || {
                let info = node.ask::<String>(&["CLUSTER", "INFO"]).await;
                (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")).then_some(())
            })
            .await;
        }
        Cluster(nodes.into_iter().map(|(node, _)| node).collect())
    }

    /// The addresses as a YAML list.
    pub fn list(&self) -> String {
        let nodes: Vec<String> = self.0.iter().map(|node| format!("\"{node}\"")).collect();
        format!("[{}]", nodes.join(", "))
    }

    /// The first answer that is not empty, of all nodes.
    pub async fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for node in &self.0 {
            keys.extend(node.ask::<Vec<String>>(&["KEYS", "*"]).await);
        }
        keys
    }
}
