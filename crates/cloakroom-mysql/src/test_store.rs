//! Stores for unit tests, on the server that the environment names.

use cloakroom_core::Random;

use crate::MysqlStore;

pub(crate) fn url() -> String {
    std::env::var("CLOAKROOM_TEST_MYSQL_URL").expect("a database for tests")
}

/// A store with tables of its own.
pub(crate) async fn open() -> MysqlStore {
    let name: [u8; 8] = Random::system().array().unwrap();
    let prefix = format!("u{:016x}_", u64::from_le_bytes(name));
    MysqlStore::builder(&url()).table_prefix(&prefix).connect().await.unwrap()
}
