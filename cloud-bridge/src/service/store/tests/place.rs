//! Where a test keeps its database: in SQLite, and after that on the PostgreSQL server that `PETREL_TEST_POSTGRES` names, in a
//! schema of its own.

use super::super::Store;
use super::super::database::{Database, Server};
use sqlx::{AnyConnection, AssertSqlSafe, Connection};

/// A place for one database.
pub(in crate::service::store) struct Place {
    pub(in crate::service::store) database: Database,
    _folder: tempfile::TempDir,
}

/// Runs a test in every kind of place.
pub(in crate::service::store) async fn everywhere(test: impl AsyncFn(&Place)) {
    test(&Place::sqlite()).await;
    if let Some(place) = Place::postgres().await {
        test(&place).await;
    }
}

impl Place {
    pub(in crate::service::store) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { database: Database::File(folder.path().to_owned()), _folder: folder }
    }

    /// Nothing where there is no server. What is made there stays: servers of tests are thrown away.
    pub(in crate::service::store) async fn postgres() -> Option<Self> {
        let url = std::env::var("PETREL_TEST_POSTGRES").ok()?;
        sqlx::any::install_default_drivers();
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let schema = format!("test_{}", hex::encode(random));
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let and = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{and}options[search_path]={schema}");
        let folder = tempfile::tempdir().unwrap();
        let server = Server::said(&url, folder.path(), None).unwrap();
        Some(Self { database: Database::Server(server), _folder: folder })
    }

    pub(in crate::service::store) async fn open(&self) -> Store {
        Store::open(&self.database, "sea").await.unwrap()
    }
}
