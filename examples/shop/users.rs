//! Users and their orders, in SQLite.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;

use crate::Error;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS user (name TEXT PRIMARY KEY, password TEXT NOT NULL,
        is_admin INTEGER NOT NULL, is_banned INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE IF NOT EXISTS item (user TEXT NOT NULL REFERENCES user, name TEXT NOT NULL);";

#[derive(Debug, Clone, Serialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) is_admin: bool,
    pub(crate) is_banned: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Users(Arc<Mutex<Connection>>);

impl Users {
    /// In this file, or in memory.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let database = path.map_or_else(Connection::open_in_memory, Connection::open)?;
        database.execute_batch(SCHEMA)?;
        Ok(Self(Arc::new(Mutex::new(database))))
    }

    /// A query takes microseconds, so it may run in an asynchronous task.
    fn database(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, change: &str, values: impl rusqlite::Params) -> Result<(), Error> {
        self.database().execute(change, values)?;
        Ok(())
    }

    pub(crate) async fn add(&self, name: &str, password: &str, admin: bool) -> Result<(), Error> {
        let hash = hash(password).await?;
        let new = "INSERT INTO user (name, password, is_admin) VALUES (?, ?, ?)";
        self.run(new, (name, hash, admin))
    }

    /// Whether this is the password of the user, who is not banned.
    pub(crate) async fn knows(&self, name: &str, password: &str) -> Result<bool, Error> {
        let query = "SELECT password FROM user WHERE name = ? AND NOT is_banned";
        let known = self.database().query_row(query, [name], |row| row.get(0)).optional()?;
        let Some(known) = known else {
            hash(password).await?; // takes as long as the check below
            return Ok(false);
        };
        let (known, password): (String, _) = (known, password.to_owned());
        let check = move || Argon2::default().verify_password(password.as_bytes(), &*known).is_ok();
        Ok(tokio::task::spawn_blocking(check).await?)
    }

    pub(crate) async fn set_password(&self, name: &str, password: &str) -> Result<(), Error> {
        let hash = hash(password).await?;
        self.run("UPDATE user SET password = ? WHERE name = ?", (hash, name))
    }

    pub(crate) fn set_banned(&self, name: &str, is_banned: bool) -> Result<(), Error> {
        self.run("UPDATE user SET is_banned = ? WHERE name = ?", (is_banned, name))
    }

    pub(crate) fn find(&self, name: &str) -> Result<Option<User>, Error> {
        let query = "SELECT name, is_admin, is_banned FROM user WHERE name = ?";
        Ok(self.database().query_row(query, [name], user).optional()?)
    }

    pub(crate) fn all(&self) -> Result<Vec<User>, Error> {
        let database = self.database();
        let mut query =
            database.prepare("SELECT name, is_admin, is_banned FROM user ORDER BY name")?;
        Ok(query.query_map([], user)?.collect::<Result<_, _>>()?)
    }

    pub(crate) fn order(&self, user: &str, item: &str) -> Result<(), Error> {
        self.run("INSERT INTO item (user, name) VALUES (?, ?)", (user, item))
    }

    pub(crate) fn orders(&self, user: &str) -> Result<Vec<String>, Error> {
        let database = self.database();
        let mut query = database.prepare("SELECT name FROM item WHERE user = ? ORDER BY rowid")?;
        Ok(query.query_map([user], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { name: row.get(0)?, is_admin: row.get(1)?, is_banned: row.get(2)? })
}

/// This takes tens of milliseconds, on purpose, so it runs on a thread that serves nobody.
async fn hash(password: &str) -> Result<String, Error> {
    let password = password.to_owned();
    let hash =
        move || Argon2::default().hash_password(password.as_bytes()).map(|it| it.to_string());
    Ok(tokio::task::spawn_blocking(hash).await??)
}
