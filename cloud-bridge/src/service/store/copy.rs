//! All that one database holds, in another: a backup is an SQLite file, whichever database it is of and whichever it goes into.
//!
//! Which tables and columns there are is read from the SQLite side, and nothing here knows one by its name.

use super::database::{Database, Dialect, FILE, Opened};
use super::{VALUE, plain, portions};
use crate::fault::Fault;
use anyhow::Context;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Row};
use std::path::Path;

/// Rows that are read at a time.
const SOME: usize = 512;

/// A table as SQLite describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// It counts its rows itself, and never gives a number twice.
    pub(super) counts: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    key: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
    Bytes,
}

/// One moment of a database that may be in use, as a new file in `folder`; how many lines the audit log has in it.
pub(crate) async fn take(from: &Database, folder: &Path) -> anyhow::Result<u64> {
    let into = Database::File(folder.to_owned());
    match from {
        Database::File(_) => {
            let path = folder.join(FILE);
            let path = path.to_str().context("the folder has no plain name")?;
            // Whoever runs beside this may be of another version: its database stays as it is.
            let pool = from.look().await?;
            sqlx::query("VACUUM INTO $1").bind(path).execute(&pool).await?;
            pool.close().await;
        }
        Database::Server(_) => {
            let pool = from.look().await?;
            is_of_this_version(&pool, from).await?;
            let mut moment = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let Opened { writer, readers, .. } = into.open().await?;
            let mut turn = writer.turn().await?;
            let tables = tables(&mut turn).await?;
            let mut all = turn.begin(Dialect::Sqlite).await?;
            fill(&tables, (Dialect::Postgres, &mut moment), (Dialect::Sqlite, &mut all)).await?;
            all.commit().await?;
            drop(turn);
            writer.close().await;
            readers.close().await;
            drop(moment);
            pool.close().await;
        }
    }
    let copy = into.look().await?;
    let lines: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM audit").fetch_one(&copy).await?;
    copy.close().await;
    Ok(u64::try_from(lines)?)
}

async fn is_of_this_version(pool: &AnyPool, database: &Database) -> anyhow::Result<()> {
    let fault = |what: &str| Fault::new(format!("the database {} {what}", database.name()));
    let known = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations'";
    if sqlx::query_scalar::<_, i64>(known).fetch_one(pool).await? == 0 {
        return Err(fault("holds nothing")
            .remedy("has this bridge run before? Give its configuration with --config")
            .into());
    }
    let there: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(pool)
        .await?;
    if !database.dialect().migrator().iter().map(|migration| migration.version).eq(there) {
        return Err(fault("is of another version of petrel")
            .remedy("take the petrel that the bridge runs with")
            .into());
    }
    Ok(())
}

/// An empty database on a server that nobody else uses now.
pub(crate) struct Vacant(Opened);

impl Vacant {
    /// # Errors
    /// When it is away, in use, or holds something.
    pub(crate) async fn find(database: &Database) -> anyhow::Result<Self> {
        // Nobody is there to see that it waits.
        database.look().await?.close().await;
        let opened = database.open().await?;
        let mut turn = opened.writer.turn().await?;
        let names = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() AND tablename <> '_sqlx_migrations'";
        for name in sqlx::query_scalar::<_, String>(names).fetch_all(&mut *turn).await? {
            let any = format!("SELECT 1 FROM \"{}\" LIMIT 1", name.replace('"', "\"\""));
            if sqlx::query(AssertSqlSafe(any)).fetch_optional(&mut *turn).await?.is_some() {
                let there = Fault::new(format!("the database {} holds something already", database.name()));
                let there = there.because(format!("there are rows in `{name}`"));
                return Err(there.remedy("name another, or make a new one: nothing is written over it").into());
            }
        }
        drop(turn);
        Ok(Self(opened))
    }

    /// Puts all that the file in `folder` holds there: all or nothing.
    pub(crate) async fn fill(self, folder: &Path) -> anyhow::Result<()> {
        let file = Database::File(folder.to_owned()).look().await?;
        let mut moment = file.begin().await?;
        let tables = as_we_made_it(&mut moment).await?;
        let Self(Opened { dialect, writer, readers }) = self;
        let mut turn = writer.turn().await?;
        let mut all = turn.begin(dialect).await?;
        fill(&tables, (Dialect::Sqlite, &mut moment), (dialect, &mut all)).await?;
        // Until somebody has counted its rows, PostgreSQL takes a full table for an empty one, and reads it from end to end.
        let names: Vec<String> = tables.iter().map(|table| format!("\"{}\"", table.name)).collect();
        sqlx::query(AssertSqlSafe(format!("ANALYZE {}", names.join(", ")))).execute(&mut *all).await?;
        all.commit().await?;
        drop(turn);
        readers.close().await;
        writer.close().await;
        drop(moment);
        file.close().await;
        Ok(())
    }
}

/// The tables of a file that somebody gave us: those of this version and nothing else, since their names become statements.
async fn as_we_made_it(file: &mut AnyConnection) -> anyhow::Result<Vec<Table>> {
    let folder = tempfile::tempdir()?;
    let Opened { writer, readers, .. } = Database::File(folder.path().to_owned()).open().await?;
    let ours = tables(&mut *writer.turn().await?).await?;
    readers.close().await;
    writer.close().await;
    let more = "SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')";
    let more: i64 = sqlx::query_scalar(more).fetch_one(&mut *file).await?;
    if more > 0 || tables(file).await? != ours {
        let other = Fault::new("the database in the backup has other tables than those of this version");
        return Err(other.remedy("somebody made it by hand: take another copy").into());
    }
    Ok(ours)
}

/// The tables of an SQLite database.
pub(super) async fn tables(sqlite: &mut AnyConnection) -> anyhow::Result<Vec<Table>> {
    let known = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
                 AND name <> '_sqlx_migrations' ORDER BY name";
    let mut tables = Vec::new();
    for row in sqlx::query(known).fetch_all(&mut *sqlite).await? {
        let (name, sql): (String, &str) = (row.try_get("name")?, row.try_get("sql")?);
        let columns = sqlx::query("SELECT name, type, pk FROM pragma_table_info($1) ORDER BY cid").bind(name.as_str());
        let columns = columns.fetch_all(&mut *sqlite).await?;
        let column = |row: &AnyRow| {
            let kind = match row.try_get("type")? {
                "INTEGER" => Kind::Number,
                "TEXT" => Kind::Text,
                "BLOB" => Kind::Bytes,
                other => anyhow::bail!("a column of `{name}` holds `{other}`"),
            };
            Ok(Column { name: row.try_get("name")?, kind, key: row.try_get::<i64, _>("pk")? > 0 })
        };
        let columns = columns.iter().map(column).collect::<anyhow::Result<_>>()?;
        tables.push(Table { counts: sql.contains("AUTOINCREMENT"), name, columns });
    }
    Ok(tables)
}

/// Copies every row of these tables from one database into another.
async fn fill(
    tables: &[Table],
    (from, source): (Dialect, &mut AnyConnection),
    (into, target): (Dialect, &mut AnyConnection),
) -> anyhow::Result<()> {
    for table in tables {
        let mut after: Option<AnyRow> = None;
        loop {
            let mut some = sqlx::query(AssertSqlSafe(table.select(after.is_some())));
            for (n, column) in table.columns.iter().enumerate().filter(|(_, column)| column.key) {
                if let Some(after) = &after {
                    some = column.kind.pass(some, after, n)?;
                }
            }
            let some = some.fetch_all(&mut *source).await?;
            for rows in portions(&some, into, |row| table.bytes(row)) {
                let mut put = sqlx::query(AssertSqlSafe(table.insert(&into.rows(rows.len(), table.columns.len()))));
                for row in rows {
                    for (n, column) in table.columns.iter().enumerate() {
                        put = column.kind.pass(put, row, n)?;
                    }
                }
                put.execute(&mut *target).await?;
            }
            let ended = some.len() < SOME;
            after = some.into_iter().next_back();
            if ended {
                break;
            }
        }
        if table.counts {
            into.go_on(target, &table.name, from.given(source, &table.name).await?).await?;
        }
    }
    Ok(())
}

type Query<'a> = sqlx::query::Query<'a, Any, sqlx::any::AnyArguments>;

impl Table {
    fn names(&self, which: impl Fn(&&Column) -> bool) -> String {
        self.columns.iter().filter(which).map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The first rows, or those behind a row.
    fn select(&self, behind: bool) -> String {
        let (all, keys, name) = (self.names(|_| true), self.names(|column| column.key), &self.name);
        let count = self.columns.iter().filter(|column| column.key).count();
        let values: Vec<String> = (1..=count).map(|n| format!("${n}")).collect();
        let behind = if behind { format!("WHERE ({keys}) > ({})", values.join(", ")) } else { String::new() };
        format!("SELECT {all} FROM {name} {behind} ORDER BY {keys} LIMIT {SOME}")
    }

    /// About as many bytes as a row has.
    fn bytes(&self, row: &AnyRow) -> usize {
        self.columns.iter().enumerate().map(|(n, column)| VALUE + column.kind.bytes(row, n)).sum()
    }

    fn insert(&self, rows: &str) -> String {
        format!("INSERT INTO {} ({}) VALUES {rows}", self.name, self.names(|_| true))
    }
}

impl Kind {
    /// How long a text is, or what is like one.
    fn bytes(self, row: &AnyRow, n: usize) -> usize {
        match self {
            Self::Number => 0,
            Self::Text => row.try_get::<&str, _>(n).map_or(0, str::len),
            Self::Bytes => row.try_get::<&[u8], _>(n).map_or(0, <[u8]>::len),
        }
    }

    /// Binds a row's value to a query; nothing, too, is of a kind.
    fn pass<'a>(self, query: Query<'a>, row: &AnyRow, n: usize) -> sqlx::Result<Query<'a>> {
        Ok(match self {
            Self::Number => query.bind(row.try_get::<Option<i64>, _>(n)?),
            Self::Text => query.bind(row.try_get::<Option<&str>, _>(n)?.map(plain)),
            Self::Bytes => query.bind(row.try_get::<Option<Vec<u8>>, _>(n)?),
        })
    }
}

impl Dialect {
    /// The last number that a table has given to a row.
    async fn given(self, connection: &mut AnyConnection, table: &str) -> sqlx::Result<i64> {
        let given = match self {
            Self::Sqlite => format!("SELECT seq FROM sqlite_sequence WHERE name = '{table}'"),
            Self::Postgres => format!("SELECT last_value FROM {table}_id_seq WHERE is_called"),
        };
        Ok(sqlx::query_scalar(AssertSqlSafe(given)).fetch_optional(connection).await?.unwrap_or(0))
    }

    /// The next one follows this.
    async fn go_on(self, connection: &mut AnyConnection, table: &str, given: i64) -> sqlx::Result<()> {
        if given == 0 {
            return Ok(());
        }
        let go_on = match self {
            Self::Sqlite => format!(
                "DELETE FROM sqlite_sequence WHERE name = '{table}'; INSERT INTO sqlite_sequence VALUES ('{table}', {given})"
            ),
            Self::Postgres => format!("SELECT setval('{table}_id_seq', {given})"),
        };
        sqlx::raw_sql(AssertSqlSafe(go_on)).execute(connection).await.map(|_| ())
    }
}
