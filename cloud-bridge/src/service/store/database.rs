//! The two databases: where one is, how it is opened, and all that they do not have in common.
//!
//! Whatever is said to them is said once, in words that both understand (decision 0046). One connection writes, by turns, and the
//! bridge lives no longer than it: with PostgreSQL it holds the lock that keeps a second bridge out.

use crate::fault::Fault;
use crate::keyfile;
use anyhow::Context;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Row, Transaction};
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// The database within a data folder.
pub(crate) const FILE: &str = "bridge.db";
/// Connections that read.
const READERS: u32 = 4;
/// How long a server may take to answer somebody who comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// What passes before it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is said that it is still away.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long a bridge waits for the one before it to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Files that a URL may name.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];
/// What else it may say. Another word could be a secret, or a file that nobody finds.
const WORDS: [&str; 7] = ["sslmode", "application_name", "host", "hostaddr", "port", "user", "options[search_path]"];

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// Before anything else is asked of a connection to SQLite: others are waited for, and what is written is on the disk.
const SQLITE_MANNERS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
/// Of the one that writes to PostgreSQL: what is committed is on its disk, whatever the server was set to, and a bridge whose machine
/// is gone keeps nobody out for longer than two minutes.
const POSTGRES_MANNERS: &str =
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
    SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6; SET tcp_user_timeout = 120000;
    SET default_transaction_isolation = 'read committed'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
/// One bridge for each schema: "petr", and the schema's number.
const LOCK: &str =
    "SELECT pg_try_advisory_lock((1885697138::bigint << 32) | current_schema()::regnamespace::oid::bigint) AS mine";

/// Where the state is kept.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// In `bridge.db` in this folder.
    File(PathBuf),
    /// On a server.
    Server(Server),
}

/// A PostgreSQL server, and how it knows the bridge.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Without a password.
    at: AnyConnectOptions,
    /// The file with the password, where there is one.
    password: Option<PathBuf>,
}

/// What of SQL the two have each in their own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Begins a transaction that writes. With PostgreSQL nobody else does: there is one connection for that.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// The most bytes in the rows of one statement: sqlx leaves Nagle's algorithm on, so that whatever does not fit into one
    /// record of TLS, 16 KiB, waits 40 ms for the server's word.
    pub(super) fn most_bytes(self) -> usize {
        match self {
            Self::Sqlite => usize::MAX,
            Self::Postgres => 15 << 10,
        }
    }

    /// `(?, ?), (?, ?)` or `($1, $2), ($3, $4)`: SQLite takes both, but looks each number up among all of them.
    pub(super) fn rows(self, rows: usize, columns: usize) -> String {
        let mut said = String::with_capacity(rows * columns * 6);
        for n in 0..rows * columns {
            said.push_str(if n == 0 {
                "("
            } else if n % columns == 0 {
                "), ("
            } else {
                ", "
            });
            match self {
                Self::Sqlite => said.push('?'),
                Self::Postgres => write!(said, "${}", n + 1).unwrap_or_default(),
            }
        }
        said + ")"
    }

    /// Asks how many bytes there are.
    pub(super) fn size(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
            Self::Postgres => {
                "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
                 WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
            }
        }
    }

    pub(super) fn migrator(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE,
            Self::Postgres => &POSTGRES,
        }
    }
}

/// The connection that writes, for one after the other.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Mutex<Option<Held>>>);

/// A connection, and what is not known of it.
#[derive(Debug)]
pub(super) struct Held {
    connection: AnyConnection,
    /// Somebody began a transaction, and may have gone away before it was known that it had begun: sqlx ends none of those.
    beginning: bool,
}

/// Whose turn it is to write.
#[derive(Debug)]
pub(super) struct Turn(OwnedMappedMutexGuard<Option<Held>, Held>);

impl Deref for Turn {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.0.connection
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.0.connection
    }
}

impl Turn {
    /// Begins a transaction that writes.
    pub(super) async fn begin(&mut self, dialect: Dialect) -> sqlx::Result<Transaction<'_, Any>> {
        let Held { connection, beginning } = &mut *self.0;
        *beginning = true;
        let begun = connection.begin_with(dialect.begin()).await?;
        *beginning = false;
        Ok(begun)
    }
}

impl Writer {
    fn new(connection: AnyConnection) -> Self {
        Self(Arc::new(Mutex::new(Some(Held { connection, beginning: false }))))
    }

    /// Waits until nobody else writes.
    pub(super) async fn turn(&self) -> anyhow::Result<Turn> {
        let turn = OwnedMutexGuard::try_map(self.0.clone().lock_owned().await, Option::as_mut);
        let mut turn = Turn(turn.ok().context("the database is closed")?);
        if turn.0.beginning {
            // Where nothing had begun there is nothing to undo, which is no error of ours.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *turn).await;
            turn.0.beginning = false;
        }
        Ok(turn)
    }

    /// Closes it in order.
    pub(super) async fn close(&self) {
        if let Some(held) = self.0.lock().await.take() {
            // Whatever was committed stays committed.
            let _ = held.connection.close().await;
        }
    }
}

/// A database that was opened.
pub(super) struct Opened {
    pub(super) dialect: Dialect,
    pub(super) writer: Writer,
    pub(super) readers: AnyPool,
}

impl Database {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::File(_) => Dialect::Sqlite,
            Self::Server(_) => Dialect::Postgres,
        }
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(data) => data.join(FILE).display().to_string(),
            Self::Server(server) => server.name(),
        }
    }

    /// Opens it, makes it where it is not there, and brings it to this version's form; with PostgreSQL nobody else can meanwhile.
    pub(super) async fn open(&self) -> anyhow::Result<Opened> {
        let unusable = || format!("cannot use the database {}", self.name());
        install_default_drivers();
        let (options, mut writer) = match self {
            Self::File(data) => {
                let options = file(data, "rwc")?;
                let mut writer = AnyConnection::connect_with(&options).await.with_context(unusable)?;
                sqlx::raw_sql(SQLITE_MANNERS).execute(&mut writer).await.with_context(unusable)?;
                (options, writer)
            }
            Self::Server(server) => {
                let options = server.options()?;
                let mut writer = server.reach(&options).await?;
                server.claim(&mut writer).await?;
                (options, writer)
            }
        };
        // Directly: behind its trait of things that can be acquired the compiler sees no end.
        self.dialect().migrator().run_direct(None, &mut writer, false).await.with_context(unusable)?;
        let writer = Writer::new(writer);
        Ok(Opened { dialect: self.dialect(), writer, readers: self.readers().connect_lazy_with(options) })
    }

    /// As it is, to read beside whoever uses it.
    pub(super) async fn look(&self) -> anyhow::Result<AnyPool> {
        install_default_drivers();
        let options = match self {
            Self::File(data) => file(data, "rw")?,
            Self::Server(server) => {
                let options = server.options()?;
                // The pool would not say why it cannot.
                let look = timeout(PATIENCE, AnyConnection::connect_with(&options)).await;
                let look = look.map_err(|_| server.away("it does not answer"))?.map_err(|e| server.refused(e))?;
                look.close().await.map_err(|e| server.refused(e))?;
                options
            }
        };
        let pool = self.readers().connect_with(options).await;
        pool.with_context(|| format!("cannot read the database {}", self.name()))
    }

    fn readers(&self) -> AnyPoolOptions {
        // A file does not go away between two questions, and to ask is one more turn of its thread for each.
        let (manners, may_be_lost) = match self {
            Self::File(_) => (SQLITE_MANNERS, false),
            Self::Server(_) => ("", true),
        };
        let readers = AnyPoolOptions::new().max_connections(READERS).test_before_acquire(may_be_lost);
        readers.after_connect(move |connection, _| {
            Box::pin(async move { sqlx::raw_sql(manners).execute(connection).await.map(|_| ()) })
        })
    }
}

fn file(data: &Path, mode: &str) -> anyhow::Result<AnyConnectOptions> {
    // As a URL, in which what leads upwards would be taken out.
    let data = std::fs::canonicalize(data).with_context(|| format!("cannot use the folder {}", data.display()))?;
    let path = data.join(FILE);
    let url = format!("sqlite:{}?mode={mode}", escaped(path.as_os_str().as_bytes()));
    url.parse().with_context(|| format!("{} has no plain name", path.display()))
}

/// As a part of a URL.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |said, byte| match byte {
        b'/' | b'-' | b'_' | b'.' => said + char::from(*byte).encode_utf8(&mut [0; 4]),
        _ if byte.is_ascii_alphanumeric() => said + char::from(*byte).encode_utf8(&mut [0; 4]),
        _ => format!("{said}%{byte:02X}"),
    })
}

impl Server {
    /// The server at `url`, which knows the bridge by the password in a file; paths in the URL are relative to `base`.
    ///
    /// # Errors
    /// When it is no address of one, or holds the password itself.
    pub(crate) fn said(url: &str, base: &Path, password: Option<PathBuf>) -> Result<Self, Fault> {
        let wrong = |why: String| {
            Fault::new("`database` is no address of a PostgreSQL server")
                .because(why)
                .remedy("write postgres://USER@HOST:5432/DATABASE, or leave it away for SQLite in the data folder")
        };
        // None of it is repeated before it is known to hold no secret.
        let mut at: AnyConnectOptions = url.parse().map_err(|_| wrong("it is no URL".into()))?;
        let said: Vec<(String, String)> = at.database_url.query_pairs().into_owned().collect();
        let says = |names: &[&str]| said.iter().any(|(name, _)| names.contains(&name.as_str()));
        if at.database_url.password().is_some() || says(&["password"]) {
            return Err(Fault::new("`database` holds a password")
                .because("configurations are copied and shown to others")
                .remedy(
                    "write it into a file with mode 0600 and name that: database_password = \"keys/db.password\"",
                ));
        }
        if !["postgres", "postgresql"].contains(&at.database_url.scheme()) {
            return Err(wrong(format!("it begins with `{}:`", at.database_url.scheme())));
        }
        let unknown =
            |(name, _): &&(String, String)| !FILES.contains(&name.as_str()) && !WORDS.contains(&name.as_str());
        if let Some((name, _)) = said.iter().find(unknown) {
            return Err(wrong(format!(
                "`{name}` is nothing that it may say: {}, {}",
                FILES.join(", "),
                WORDS.join(", ")
            )));
        }
        let meant: PgConnectOptions = url.parse().map_err(|e: sqlx::Error| wrong(e.to_string()))?;
        if meant.get_database().is_none() {
            return Err(wrong("it names no database".into()));
        }
        let host = meant.get_host();
        let near = meant.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let mut query = at.database_url.query_pairs_mut();
        query.clear();
        for (name, value) in &said {
            match base.join(value).to_str() {
                Some(path) if FILES.contains(&name.as_str()) => query.append_pair(name, path),
                Some(_) | None => query.append_pair(name, value),
            };
        }
        // Whoever stands between could read and change everything: to trust the way all the same is said aloud.
        if !near && !says(&["sslmode"]) {
            query.append_pair("sslmode", "verify-full");
        }
        if !says(&["application_name"]) {
            query.append_pair("application_name", "petrel-bridge");
        }
        // Each statement of many rows is one of eight lengths, and all of them are known to the connection that writes.
        query.append_pair("statement-cache-capacity", "500");
        drop(query);
        Ok(Self { at, password })
    }

    fn name(&self) -> String {
        let mut url = self.at.database_url.clone();
        url.set_query(None);
        url.into()
    }

    fn options(&self) -> anyhow::Result<AnyConnectOptions> {
        let mut options = self.at.clone();
        // That one of these is not there would look as if the server were not.
        for (_, path) in options.database_url.query_pairs().filter(|(name, _)| FILES.contains(&&**name)) {
            std::fs::read(&*path).with_context(|| format!("cannot read {path}, which `database` names"))?;
        }
        if let Some(path) = &self.password {
            let text = keyfile::read_secret_text(path)?;
            let password = Zeroizing::new(escaped(text.trim_end_matches(['\r', '\n']).as_bytes()));
            let set = options.database_url.set_password(Some(&password));
            set.ok().context("the URL of the database has no place for a password")?;
        }
        Ok(options)
    }

    /// Connects, however long the server is away.
    async fn reach(&self, options: &AnyConnectOptions) -> anyhow::Result<AnyConnection> {
        let mut told: Option<Instant> = None;
        loop {
            let why = match timeout(PATIENCE, AnyConnection::connect_with(options)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if is_away(&error) => error.to_string(),
                Ok(Err(error)) => return Err(self.refused(error).into()),
                Err(_) => "it does not answer".into(),
            };
            if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                warn!(database = self.name(), why, "the database is away: the bridge waits for it");
                told = Some(Instant::now());
            }
            sleep(AGAIN).await;
        }
    }

    /// Makes a connection the one that writes, if nobody else has one.
    async fn claim(&self, writer: &mut AnyConnection) -> anyhow::Result<()> {
        let unusable = || Fault::new(format!("cannot use the database {}", self.name()));
        let encoding = "SELECT current_setting('server_encoding')";
        let encoding: String = sqlx::query_scalar(encoding).fetch_one(&mut *writer).await?;
        if encoding != "UTF8" {
            let wrong = unusable().because(format!("it holds its texts as {encoding}"));
            return Err(wrong
                .remedy("make one that can hold every text: createdb --template=template0 --encoding=UTF8")
                .into());
        }
        sqlx::raw_sql(POSTGRES_MANNERS).execute(&mut *writer).await.map_err(|e| unusable().because(e))?;
        let since = Instant::now();
        loop {
            let mine: Option<bool> = sqlx::query(LOCK).fetch_one(&mut *writer).await?.try_get("mine")?;
            match mine {
                Some(true) => return Ok(()),
                // One that was killed is gone as soon as the server has noticed.
                Some(false) if since.elapsed() < LOCK_PATIENCE => sleep(AGAIN).await,
                Some(false) => {
                    let taken = unusable().because("another bridge uses it now");
                    return Err(taken.remedy("stop that one: two would give devices two orders").into());
                }
                None => {
                    let nowhere = unusable().because("there is no schema in its search path");
                    return Err(nowhere.remedy("CREATE SCHEMA public, or name one: ?options[search_path]=NAME").into());
                }
            }
        }
    }

    fn away(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        let away = Fault::new(format!("cannot reach the database {}", self.name())).because(why);
        away.remedy("is PostgreSQL up, and does it listen there?")
    }

    fn refused(&self, error: sqlx::Error) -> Fault {
        if is_away(&error) {
            return self.away(error);
        }
        let code = error.as_database_error().and_then(|e| e.code().map(|code| code.into_owned()));
        let remedy = match (&error, code.as_deref()) {
            (sqlx::Error::Tls(_) | sqlx::Error::Io(_), _) => {
                "a server elsewhere must prove who it is: name the authority behind its certificate in the URL, \
                 ?sslrootcert=/etc/petrel-bridge/db-ca.pem (or trust whatever is between with sslmode=disable)"
            }
            (_, Some("28P01" | "28000")) => {
                "look at the user in `database`, at `database_password`, and at the server's pg_hba.conf"
            }
            (_, Some("3D000")) => "make it: createdb --owner=USER DATABASE",
            _ => "look at the server's log",
        };
        Fault::new(format!("cannot use the database {}", self.name())).because(error).remedy(remedy)
    }
}

/// Whether the server may come by itself.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // What TLS does not believe comes as data that is not valid.
        sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        sqlx::Error::Database(error) => {
            error.is_transient_in_connect_phase() || error.code().is_some_and(|code| code.starts_with("57P"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::ConnectOptions;
    use sqlx::postgres::PgSslMode;

    #[test]
    fn a_server_elsewhere_must_prove_who_it_is() {
        for (url, proves) in [
            ("postgres://p@db.plant.example/p", true),
            ("postgresql://p@10.0.0.7:5433/p?application_name=x", true),
            ("postgres://p@localhost/p?host=db.plant.example", true),
            ("postgres://p@localhost/p?hostaddr=10.0.0.7", true),
            ("postgres://p@db/p?sslmode=disable", false),
            ("postgres://p@127.0.0.1/p", false),
            ("postgres://p@[::1]:5432/p", false),
            ("postgres://p@localhost:5432/p", false),
            ("postgres://p@localhost/p?host=/run/postgresql", false),
            ("postgres://p@%2Frun%2Fpostgresql/p", false),
        ] {
            let server = Server::said(url, Path::new("/etc/petrel"), None).unwrap();
            let meant = PgConnectOptions::from_url(&server.at.database_url).unwrap();
            assert_eq!(matches!(meant.get_ssl_mode(), PgSslMode::VerifyFull), proves, "{url}");
        }
        let server = Server::said("postgres://p@db/p?sslrootcert=tls/db.pem", Path::new("/etc/petrel"), None).unwrap();
        assert!(server.at.database_url.query_pairs().any(|(_, value)| value == "/etc/petrel/tls/db.pem"));
        assert!(server.options().unwrap_err().to_string().contains("cannot read /etc/petrel/tls/db.pem"));
    }

    #[test]
    fn an_address_of_no_server_is_refused_and_no_secret_is_repeated() {
        for (url, why) in [
            ("postgres://p:hunter2@db/p", "configurations are copied"),
            ("postgres://p@db/p?password=hunter2", "configurations are copied"),
            ("mysql://p:hunter2@db/p", "configurations are copied"),
            ("hunter2@db/p", "it is no URL"),
            ("http://db/p", "it begins with `http:`"),
            ("postgres://p@db", "it names no database"),
            ("postgres://p@db/p?sslmode=perhaps", "perhaps"),
            ("postgres://p@db/p?sslpassword=hunter2", "`sslpassword` is nothing that it may say"),
            ("postgres://p@db/p?ssl-ca=hunter2", "`ssl-ca` is nothing that it may say"),
        ] {
            let fault = Server::said(url, Path::new("/etc/petrel"), None).unwrap_err();
            let said = crate::fault::told(&fault);
            assert!(said.contains(why) && !said.contains("hunter2") && fault.advice().is_some(), "{url}: {said}");
        }
    }

    #[test]
    fn each_has_placeholders_of_its_own() {
        assert_eq!(Dialect::Sqlite.rows(2, 3), "(?, ?, ?), (?, ?, ?)");
        assert_eq!(Dialect::Postgres.rows(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }

    #[tokio::test]
    async fn a_folder_may_have_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a%20b ?c#d é");
        std::fs::create_dir(&folder).unwrap();
        let opened = Database::File(folder.clone()).open().await.unwrap();
        opened.writer.close().await;
        assert!(folder.join(FILE).exists());
    }
}
