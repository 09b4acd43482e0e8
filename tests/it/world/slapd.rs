//! A real OpenLDAP server in a folder of its own, with a few users and certificates.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{eventually, free_port};

/// A running directory: `ann`, `bob` and `jörg` below `ou=people`, `ann` again below `ou=twins`.
pub struct Slapd {
    folder: TempDir,
    port: u16,
    tls_port: u16,
    running: Option<Child>,
}

const USERS: &str = "dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: uid=ann,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: A
userPassword: ann-pw

dn: uid=bob,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
userPassword: bob-pw

dn:: dWlkPWrDtnJnLG91PXBlb3BsZSxkYz1leGFtcGxlLGRjPWNvbQ==
objectClass: inetOrgPerson
uid:: asO2cmc=
cn: J
sn: J
userPassword:: cMOkNTU=

dn: ou=twins,dc=example,dc=com
objectClass: organizationalUnit
ou: twins

dn: uid=ann,ou=twins,dc=example,dc=com
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: A
userPassword: ann-pw
";

impl Slapd {
    pub async fn start() -> Slapd {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        certificates(path);
        std::fs::create_dir(path.join("db")).expect("a folder");
        std::fs::write(path.join("users.ldif"), USERS).expect("a file");
        let config = format!(
            "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/slapd.pid
TLSCACertificateFile {dir}/ca.pem
TLSCertificateFile {dir}/server.pem
TLSCertificateKeyFile {dir}/server.key
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
rootpw admin-pw
directory {dir}/db
maxsize 10485760
",
            dir = path.display()
        );
        std::fs::write(path.join("slapd.conf"), config).expect("a file");
        let load =
            Command::new("/usr/sbin/slapadd").args(["-f", "slapd.conf", "-l", "users.ldif"]).current_dir(path).output();
        let load = load.expect("slapd is installed by scripts/setup.sh test");
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        let mut slapd = Slapd { port: free_port(), tls_port: free_port(), folder, running: None };
        slapd.run().await;
        slapd
    }

    /// Starts it, also again after [`stop`](Self::stop).
    pub async fn run(&mut self) {
        let urls = format!("{} {}", self.url(), self.tls_url());
        let slapd = Command::new("/usr/sbin/slapd")
            .args(["-d", "0", "-f", "slapd.conf", "-h", &urls])
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(slapd.expect("slapd starts"));
        let port = self.port;
        eventually("slapd listens", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
    }

    /// Ends it and all of its connections.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    pub fn tls_url(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.tls_port)
    }

    /// The authority of its certificate.
    pub fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An authority and a certificate of it for 127.0.0.1.
fn certificates(folder: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
    let server = server.signed_by(&key, &authority).expect("a certificate");
    for (name, text) in [("ca.pem", authority.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).expect("a file");
    }
}
