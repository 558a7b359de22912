//! Builds the shop's database file: the same rows on every machine, in one transaction.
//!
//! The rows go to a file beside the wanted one, which is renamed when it is complete; so a file
//! under the wanted name is a whole shop, whatever interrupted an earlier build.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use rusqlite::{Connection, OpenFlags, Transaction, params};

use crate::{error::StoreError, progress::Bar};

/// Counted up whenever the schema or the rows change, so that an older file is not taken for ours.
const VERSION: u32 = 1;
/// Products of a shop for which nothing else was asked.
pub const DEFAULT_PRODUCTS: u32 = 50_000;
const CATEGORIES: u32 = 60;
const BRANDS: u32 = 120;
const REVIEWS_PER_PRODUCT: u32 = 12;
const ORDERS_PER_PRODUCT: u32 = 4;
/// The shop's date and the span its orders and reviews lie in, in days.
const TODAY: i64 = 20_600;
const HISTORY: i64 = 180;
const SEED: u64 = 0x5702_EF20;

/// Steps the progress bar gets: one per product, review and order.
pub fn steps(products: u32) -> u64 {
    u64::from(products) * u64::from(1 + REVIEWS_PER_PRODUCT + ORDERS_PER_PRODUCT)
}

/// Whether a complete shop lies at `path`; an error if something else does.
pub fn is_complete(path: &Path, asked: Option<u32>) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(StoreError::DatabaseFile {
                path: path.into(),
                source,
            });
        }
        Ok(file) if file.is_dir() => {
            let source = io::ErrorKind::IsADirectory.into();
            return Err(StoreError::DatabaseFile {
                path: path.into(),
                source,
            });
        }
        Ok(_) => {}
    }
    let foreign = |reason: String| StoreError::ForeignDatabase {
        path: path.into(),
        reason,
    };
    let (version, found): (u32, u32) =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|connection| {
                connection.query_row("SELECT version, products FROM shop", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
            })
            .map_err(|error| foreign(error.to_string()))?;
    if version != VERSION {
        return Err(foreign(format!(
            "it says version {version}, this program builds {VERSION}"
        )));
    }
    match asked {
        Some(asked) if asked != found => Err(StoreError::OtherSize {
            path: path.into(),
            found,
            asked,
        }),
        _ => Ok(true),
    }
}

/// Builds a shop of `products` products at `path`.
pub fn build(path: &Path, products: u32, bar: &Bar) -> Result<(), StoreError> {
    let partial = beside(path);
    let file_error = |source| StoreError::DatabaseFile {
        path: path.into(),
        source,
    };
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(error)),
        _ => {}
    }
    // Opening the file here gives the system's own reason (no such directory, not permitted),
    // where SQLite would only say that it was unable to.
    fs::File::create(&partial).map_err(file_error)?;
    let result = fill(&partial, products, bar);
    if let Err(source) = result {
        // The first failure is the one worth telling; a leftover is removed by the next build too.
        let _ = fs::remove_file(&partial);
        return Err(StoreError::Database {
            path: path.into(),
            doing: "it was being built",
            source,
        });
    }
    fs::rename(&partial, path).map_err(file_error)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".building");
    name.into()
}

fn fill(path: &Path, products: u32, bar: &Bar) -> Result<(), rusqlite::Error> {
    let mut connection = Connection::open(path)?;
    // A build that is interrupted is thrown away, so it needs no journal on disk and no syncing.
    connection.execute_batch(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA cache_size = -64000;",
    )?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(include_str!("schema.sql"))?;
    let mut random = StdRng::seed_from_u64(SEED);
    names(&transaction)?;
    insert_products(&transaction, &mut random, products, bar)?;
    insert_reviews(&transaction, &mut random, products, bar)?;
    insert_orders(&transaction, &mut random, products, bar)?;
    transaction.execute(
        "INSERT INTO shop VALUES (?1, ?2, ?3)",
        params![VERSION, products, TODAY],
    )?;
    transaction.execute_batch(include_str!("indexes.sql"))?;
    transaction.commit()?;
    // The mode is kept in the file: readers of the running shop never wait for its writer.
    connection.execute_batch("PRAGMA journal_mode = WAL;")?;
    connection.close().map_err(|(_, error)| error)
}

const KINDS: [&str; 12] = [
    "Lamp",
    "Kettle",
    "Chair",
    "Rucksack",
    "Jacket",
    "Speaker",
    "Drill",
    "Tent",
    "Pan",
    "Bicycle Light",
    "Notebook",
    "Headset",
];
const PLACES: [&str; 5] = ["Kitchen", "Garden", "Travel", "Studio", "Workshop"];
const LOOKS: [&str; 8] = [
    "Compact", "Sturdy", "Quiet", "Foldable", "Light", "Classic", "Outdoor", "Everyday",
];
const OPINIONS: [&str; 6] = [
    "Does what it says; I would buy it again.",
    "Arrived a day early & well packed.",
    "Good value, though the manual could be clearer.",
    "Smaller than I thought, but it works every day.",
    "The second one we own. The first still runs after four years.",
    "Not for me: too loud, and the colour differs from the picture.",
];

fn names(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    for id in 1..=CATEGORIES {
        let (kind, place) = ((id - 1) % 12, (id - 1) / 12);
        let name = format!(
            "{} {}s",
            PLACES[place as usize % PLACES.len()],
            KINDS[kind as usize]
        );
        transaction.execute("INSERT INTO categories VALUES (?1, ?2)", params![id, name])?;
    }
    for id in 1..=BRANDS {
        transaction.execute(
            "INSERT INTO brands VALUES (?1, ?2)",
            params![id, format!("Brand {id:03}")],
        )?;
    }
    Ok(())
}

/// Categories of a shop differ in size: the n-th is n^-0.6 as large as the first, so the tenth has
/// a quarter of its products.
fn category_shares() -> Vec<f64> {
    let mut sum = 0.0;
    (1..=CATEGORIES)
        .map(|id| {
            sum += f64::from(id).powf(-0.6);
            sum
        })
        .collect()
}

fn insert_products(
    transaction: &Transaction<'_>,
    random: &mut StdRng,
    products: u32,
    bar: &Bar,
) -> Result<(), rusqlite::Error> {
    let shares = category_shares();
    let total = shares.last().copied().unwrap_or(1.0);
    let mut insert = transaction.prepare("INSERT INTO products VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for id in 1..=products {
        let place = random.random_range(0.0..total);
        let category = shares.partition_point(|&share| share <= place) + 1;
        let kind = KINDS[(category - 1) % KINDS.len()];
        let name = format!("{} {kind} {id}", LOOKS[random.random_range(0..LOOKS.len())]);
        let description = format!(
            "A {} for every day. Two years of warranty, spare parts in stock.",
            kind.to_lowercase()
        );
        let price = random.random_range(500..50_000_i64);
        insert.execute(params![
            id,
            category as u32,
            random.random_range(1..=BRANDS),
            name,
            description,
            price
        ])?;
        bar.step();
    }
    Ok(())
}

/// Low numbers sell more than high ones, as few products of a shop make most of its sales.
fn popular(random: &mut impl Rng, products: u32) -> u32 {
    let place = random.random::<f64>();
    1 + ((place.powf(1.5) * f64::from(products)) as u32).min(products - 1)
}

fn insert_reviews(
    transaction: &Transaction<'_>,
    random: &mut StdRng,
    products: u32,
    bar: &Bar,
) -> Result<(), rusqlite::Error> {
    let mut insert = transaction.prepare("INSERT INTO reviews VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for id in 1..=i64::from(products) * i64::from(REVIEWS_PER_PRODUCT) {
        let opinion = random.random_range(0..OPINIONS.len());
        let rating = if opinion == OPINIONS.len() - 1 {
            random.random_range(1..=3)
        } else {
            random.random_range(3..=5)
        };
        let day = TODAY - random.random_range(0..HISTORY);
        insert.execute(params![
            id,
            popular(random, products),
            rating,
            day,
            OPINIONS[opinion]
        ])?;
        bar.step();
    }
    Ok(())
}

fn insert_orders(
    transaction: &Transaction<'_>,
    random: &mut StdRng,
    products: u32,
    bar: &Bar,
) -> Result<(), rusqlite::Error> {
    let mut insert_order = transaction.prepare("INSERT INTO orders VALUES (?1, ?2)")?;
    let mut insert_line = transaction
        .prepare("INSERT INTO order_lines (order_id, product_id, quantity) VALUES (?1, ?2, ?3)")?;
    let orders = i64::from(products) * i64::from(ORDERS_PER_PRODUCT);
    for id in 1..=orders {
        // Orders are numbered as they come in, so their days rise with their numbers.
        insert_order.execute(params![
            id,
            TODAY - HISTORY + 1 + id * (HISTORY - 1) / orders
        ])?;
        for _ in 0..random.random_range(1..=5) {
            insert_line.execute(params![
                id,
                popular(random, products),
                random.random_range(1..=3)
            ])?;
        }
        bar.step();
    }
    Ok(())
}
