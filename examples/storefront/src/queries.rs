//! The shop's SQL, one function per statement, each with the row it returns.
//!
//! It is written as a shop would write it, over the usual indexes. What makes a category page
//! expensive is what it shows: its products ranked by last month's sales, with their ratings, and
//! counts to filter by; all of which is worked out from the orders and reviews themselves.

use rusqlite::{Error, Row};

use crate::database::Session;

/// Days of sales a "best seller" is ranked by.
const MONTH: i64 = 30;

/// A product as lists show it.
#[derive(Debug)]
pub struct Card {
    pub id: u32,
    pub name: String,
    pub brand: String,
    pub price_cents: i64,
    pub reviews: i64,
    pub rating: Option<f64>,
    pub sold: i64,
}

fn card(row: &Row<'_>) -> Result<Card, Error> {
    Ok(Card {
        id: row.get(0)?,
        name: row.get(1)?,
        brand: row.get(2)?,
        price_cents: row.get(3)?,
        reviews: row.get(4)?,
        rating: row.get(5)?,
        sold: row.get(6)?,
    })
}

/// A number of products under a label: one line of a filter or of the sidebar.
#[derive(Debug)]
pub struct Count {
    pub id: i64,
    pub label: String,
    pub products: i64,
}

fn count(row: &Row<'_>) -> Result<Count, Error> {
    Ok(Count {
        id: row.get(0)?,
        label: row.get(1)?,
        products: row.get(2)?,
    })
}

pub fn category_name(session: &Session<'_>, category: u32) -> Result<Option<String>, Error> {
    session.first(
        "SELECT name FROM categories WHERE id = ?1",
        [category],
        |row| row.get(0),
    )
}

/// The category's best sellers of the last month, with their ratings.
pub fn best_sellers(session: &Session<'_>, category: u32, limit: u32) -> Result<Vec<Card>, Error> {
    let sql = "
        WITH rated AS (
            SELECT r.product_id, count(*) AS reviews, avg(r.rating) AS rating
            FROM products p
            JOIN reviews r ON r.product_id = p.id
            WHERE p.category_id = ?1
            GROUP BY r.product_id
        ), sold AS (
            SELECT l.product_id, sum(l.quantity) AS units
            FROM products p
            JOIN order_lines l ON l.product_id = p.id
            JOIN orders o      ON o.id = l.order_id
            WHERE p.category_id = ?1 AND o.ordered_on > ?2
            GROUP BY l.product_id
        )
        SELECT p.id, p.name, b.name, p.price_cents,
               coalesce(rated.reviews, 0), rated.rating, coalesce(sold.units, 0) AS units
        FROM products p
        JOIN brands b     ON b.id = p.brand_id
        LEFT JOIN rated   ON rated.product_id = p.id
        LEFT JOIN sold    ON sold.product_id = p.id
        WHERE p.category_id = ?1
        ORDER BY units DESC, p.id
        LIMIT ?3";
    session.rows(sql, (category, session.today - MONTH, limit), card)
}

/// How many products of the category each brand has, for the filter by brand.
pub fn brands(session: &Session<'_>, category: u32) -> Result<Vec<Count>, Error> {
    let sql = "
        SELECT b.id, b.name, count(*) AS products
        FROM products p
        JOIN brands b ON b.id = p.brand_id
        WHERE p.category_id = ?1
        GROUP BY b.id
        ORDER BY products DESC, b.id
        LIMIT 20";
    session.rows(sql, [category], count)
}

/// How many products of the category are rated how well, for the filter by rating.
pub fn rating_bands(session: &Session<'_>, category: u32) -> Result<Vec<Count>, Error> {
    let sql = "
        SELECT stars, stars || ' stars and more', count(*)
        FROM (
            SELECT CAST(avg(r.rating) AS INTEGER) AS stars
            FROM products p
            JOIN reviews r ON r.product_id = p.id
            WHERE p.category_id = ?1
            GROUP BY p.id
        )
        GROUP BY stars
        ORDER BY stars DESC";
    session.rows(sql, [category], count)
}

/// The products on the front page, in its order.
pub fn featured(session: &Session<'_>) -> Result<Vec<Card>, Error> {
    let sql = "
        SELECT p.id, p.name, b.name, p.price_cents,
               (SELECT count(*) FROM reviews r WHERE r.product_id = p.id),
               (SELECT avg(r.rating) FROM reviews r WHERE r.product_id = p.id),
               (SELECT coalesce(sum(l.quantity), 0)
                FROM order_lines l JOIN orders o ON o.id = l.order_id
                WHERE l.product_id = p.id AND o.ordered_on > ?1)
        FROM featured f
        JOIN products p ON p.id = f.product_id
        JOIN brands b   ON b.id = p.brand_id
        ORDER BY f.position";
    session.rows(sql, [session.today - MONTH], card)
}

/// One product with its description and its category.
#[derive(Debug)]
pub struct Product {
    pub card: Card,
    pub description: String,
    pub category: u32,
    pub category_name: String,
}

pub fn product(session: &Session<'_>, id: u32) -> Result<Option<Product>, Error> {
    let sql = "
        SELECT p.id, p.name, b.name, p.price_cents,
               (SELECT count(*) FROM reviews r WHERE r.product_id = p.id),
               (SELECT avg(r.rating) FROM reviews r WHERE r.product_id = p.id),
               (SELECT coalesce(sum(l.quantity), 0)
                FROM order_lines l JOIN orders o ON o.id = l.order_id
                WHERE l.product_id = p.id AND o.ordered_on > ?2),
               p.description, c.id, c.name
        FROM products p
        JOIN brands b     ON b.id = p.brand_id
        JOIN categories c ON c.id = p.category_id
        WHERE p.id = ?1";
    session.first(sql, (id, session.today - MONTH), |row| {
        Ok(Product {
            card: card(row)?,
            description: row.get(7)?,
            category: row.get(8)?,
            category_name: row.get(9)?,
        })
    })
}

/// A customer's review.
#[derive(Debug)]
pub struct Review {
    pub rating: i64,
    pub body: String,
}

/// The product's newest reviews.
pub fn newest_reviews(session: &Session<'_>, product: u32) -> Result<Vec<Review>, Error> {
    let sql = "
        SELECT rating, body FROM reviews
        WHERE product_id = ?1
        ORDER BY written_on DESC, id DESC
        LIMIT 10";
    session.rows(sql, [product], |row| {
        Ok(Review {
            rating: row.get(0)?,
            body: row.get(1)?,
        })
    })
}

/// What customers who bought the product bought with it most often.
pub fn bought_together(session: &Session<'_>, product: u32) -> Result<Vec<Card>, Error> {
    let sql = "
        SELECT p.id, p.name, b.name, p.price_cents,
               (SELECT count(*) FROM reviews r WHERE r.product_id = p.id),
               (SELECT avg(r.rating) FROM reviews r WHERE r.product_id = p.id),
               others.units
        FROM (
            SELECT other.product_id, sum(other.quantity) AS units
            FROM order_lines mine
            JOIN order_lines other ON other.order_id = mine.order_id
            WHERE mine.product_id = ?1 AND other.product_id <> ?1
            GROUP BY other.product_id
            ORDER BY units DESC, other.product_id
            LIMIT 6
        ) others
        JOIN products p ON p.id = others.product_id
        JOIN brands b   ON b.id = p.brand_id
        ORDER BY others.units DESC, p.id";
    session.rows(sql, [product], card)
}

/// How many products each category has, for the sidebar.
pub fn category_counts(session: &Session<'_>) -> Result<Vec<Count>, Error> {
    let sql = "
        SELECT c.id, c.name, count(p.id)
        FROM categories c
        LEFT JOIN products p ON p.category_id = c.id
        GROUP BY c.id
        ORDER BY c.id";
    session.rows(sql, [], count)
}

/// Orders of the last month and reviews altogether, for the foot of the sidebar.
pub fn totals(session: &Session<'_>) -> Result<(i64, i64), Error> {
    let sql = "
        SELECT (SELECT count(*) FROM orders WHERE ordered_on > ?1),
               (SELECT count(*) FROM reviews)";
    let row = session.first(sql, [session.today - MONTH], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(row.unwrap_or_default())
}

/// The price of a product alone.
pub fn price(session: &Session<'_>, product: u32) -> Result<Option<i64>, Error> {
    let sql = "SELECT price_cents FROM products WHERE id = ?1";
    session.first(sql, [product], |row| row.get(0))
}

/// Sets a price; false if there is no such product.
pub fn set_price(session: &Session<'_>, product: u32, price_cents: i64) -> Result<bool, Error> {
    let sql = "UPDATE products SET price_cents = ?2 WHERE id = ?1";
    Ok(session.change(sql, (product, price_cents))? > 0)
}
