//! The shop's database as its handlers see it: a few read connections used off the async threads,
//! one write connection, and one place that every statement runs through and is counted at.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, Params, Row};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::error::{ShopError, StoreError};

/// Read connections of one shop: enough to keep a small machine's cores busy.
const READERS: usize = 4;

/// An open shop database. Each shop opens its own, so each counts its own statements.
#[derive(Debug)]
pub struct Database {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    writer: Mutex<Connection>,
    statements: AtomicU64,
    /// Reads fail: the outage that the run plays.
    down: AtomicBool,
    today: i64,
    categories: u32,
    products: u32,
}

/// A connection lent to a handler; the only way to run a statement.
#[derive(Debug)]
pub struct Session<'c> {
    connection: &'c Connection,
    statements: &'c AtomicU64,
    /// The shop's date, in days since 1970.
    pub today: i64,
}

impl Session<'_> {
    /// Runs one query and collects what `map` makes of its rows.
    pub fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<Vec<T>, rusqlite::Error> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.connection
            .prepare_cached(sql)?
            .query_map(params, map)?
            .collect()
    }

    /// Runs one query and returns its first row, if it has any.
    pub fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<Option<T>, rusqlite::Error> {
        Ok(self.rows(sql, params, map)?.into_iter().next())
    }

    /// Runs one statement that changes rows, commits it, and says how many rows it changed.
    pub fn change(&self, sql: &str, params: impl Params) -> Result<usize, rusqlite::Error> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.connection.prepare_cached(sql)?.execute(params)
    }
}

impl Database {
    /// Opens the complete shop at `path`.
    pub fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        Self::try_open(path)
            .map(Arc::new)
            .map_err(|source| StoreError::Database {
                path: path.into(),
                doing: "it was being opened",
                source,
            })
    }

    fn try_open(path: &Path) -> Result<Self, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // A cache of 64 MB and a mapped file: what one does to a SQLite that has to be fast, so
        // that the uncached pages are not slower than they need to be.
        let connect = || {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 PRAGMA busy_timeout = 5000; PRAGMA cache_size = -64000; PRAGMA mmap_size = 268435456;",
            )?;
            Ok::<_, rusqlite::Error>(connection)
        };
        let writer = connect()?;
        let sizes = "SELECT today, products, (SELECT count(*) FROM categories) FROM shop";
        let (today, products, categories) =
            writer.query_row(sizes, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(Self {
            idle: Mutex::new((0..READERS).map(|_| connect()).collect::<Result<_, _>>()?),
            permits: Arc::new(Semaphore::new(READERS)),
            writer: Mutex::new(writer),
            statements: AtomicU64::new(0),
            down: AtomicBool::new(false),
            today,
            categories,
            products,
        })
    }

    pub fn categories(&self) -> u32 {
        self.categories
    }

    pub fn products(&self) -> u32 {
        self.products
    }

    /// Statements run so far by pages and price changes.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Has all reads fail from now on, or none any more.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Lends a read connection to `work`, on a thread that may block.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Session<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, ShopError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(ShopError::Down);
        }
        // As many permits as connections, so whoever holds a permit finds a connection.
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| ShopError::NoConnection)?;
        let database = Arc::clone(self);
        spawn_blocking(move || {
            let connection = database.idle().pop().ok_or(ShopError::NoConnection)?;
            let result = work(&database.session(&connection));
            database.idle().push(connection);
            drop(permit);
            Ok(result?)
        })
        .await?
    }

    /// Lends the one write connection to `work`, on a thread that may block.
    pub async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Session<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, ShopError> {
        let database = Arc::clone(self);
        spawn_blocking(move || {
            let connection = database
                .writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Ok(work(&database.session(&connection))?)
        })
        .await?
    }

    fn session<'c>(&'c self, connection: &'c Connection) -> Session<'c> {
        Session {
            connection,
            statements: &self.statements,
            today: self.today,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
