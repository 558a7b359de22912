//! The shop's pages: what each one shows, as HTML, and the tags of everything it shows.
//!
//! The cached and the uncached shop both render here, so their pages are the same bytes.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use larder::tier::{FromTierKey, TierKey};
use serde::{Deserialize, Serialize};

use crate::{
    database::Session,
    queries::{self, Card, Count},
};

/// Products a category page shows. Each is a tag of the page, whose tags are limited in number.
const SHOWN: u32 = 48;

/// A page of the shop; the key it is cached under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Page {
    Featured,
    Sidebar,
    Category(u32),
    Product(u32),
    /// A product's price alone, as a page asks for it that is open in a browser.
    Price(u32),
}

impl fmt::Display for Page {
    /// The path the page is served at.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Featured => out.write_str("/"),
            Self::Sidebar => out.write_str("/sidebar"),
            Self::Category(id) => write!(out, "/categories/{id}"),
            Self::Product(id) => write!(out, "/products/{id}"),
            Self::Price(id) => write!(out, "/products/{id}/price"),
        }
    }
}

impl TierKey for Page {
    fn to_tier(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.to_string().into_bytes())
    }
}

impl FromTierKey for Page {
    fn from_tier(bytes: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(bytes).ok()?;
        let page = match path {
            "/" => Self::Featured,
            "/sidebar" => Self::Sidebar,
            _ => match path.strip_prefix("/categories/") {
                Some(id) => Self::Category(id.parse().ok()?),
                None => {
                    let id = path.strip_prefix("/products/")?;
                    match id.strip_suffix("/price") {
                        Some(id) => Self::Price(id.parse().ok()?),
                        None => Self::Product(id.parse().ok()?),
                    }
                }
            },
        };
        // "/products/07" is nobody's key.
        (page.to_string() == path).then_some(page)
    }
}

/// A page as it is answered and cached. That a page does not exist is worth remembering too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub found: bool,
    pub body: Bytes,
}

/// A freshly rendered page, and what its cache entry has to know.
#[derive(Debug)]
pub struct Rendered {
    pub answer: Answer,
    pub tags: Vec<String>,
    pub time_to_live: Duration,
}

/// The tag of everything that shows this product.
pub fn product_tag(id: u32) -> String {
    format!("product:{id}")
}

fn category_tag(id: u32) -> String {
    format!("category:{id}")
}

/// Renders a page from the database.
pub fn render(page: Page, session: &Session<'_>) -> Result<Rendered, rusqlite::Error> {
    match page {
        Page::Featured => featured(session),
        Page::Sidebar => sidebar(session),
        Page::Category(id) => category(session, id),
        Page::Product(id) => product(session, id),
        Page::Price(id) => price(session, id),
    }
}

fn featured(session: &Session<'_>) -> Result<Rendered, rusqlite::Error> {
    let cards = queries::featured(session)?;
    let mut html = Html::new("Featured");
    html.cards(&cards);
    let mut tags = tags_of(&cards);
    tags.push("featured".to_owned());
    Ok(html.into_page(tags))
}

fn sidebar(session: &Session<'_>) -> Result<Rendered, rusqlite::Error> {
    let counts = queries::category_counts(session)?;
    let (orders, reviews) = queries::totals(session)?;
    let mut html = Html::new("Departments");
    html.counts("Categories", &counts);
    html.text(
        "p",
        &format!("{orders} orders this month, {reviews} reviews"),
    );
    let mut page = html.into_page(vec!["counts".to_owned()]);
    // Counts may lag a little: nobody buys by them, and every order would change them.
    page.time_to_live = Duration::from_secs(60);
    Ok(page)
}

fn category(session: &Session<'_>, id: u32) -> Result<Rendered, rusqlite::Error> {
    let Some(name) = queries::category_name(session, id)? else {
        return Ok(missing(category_tag(id)));
    };
    let cards = queries::best_sellers(session, id, SHOWN)?;
    let brands = queries::brands(session, id)?;
    let ratings = queries::rating_bands(session, id)?;
    let mut html = Html::new(&name);
    html.counts("Brands", &brands);
    html.counts("Ratings", &ratings);
    html.cards(&cards);
    let mut tags = tags_of(&cards);
    tags.push(category_tag(id));
    Ok(html.into_page(tags))
}

fn product(session: &Session<'_>, id: u32) -> Result<Rendered, rusqlite::Error> {
    let Some(product) = queries::product(session, id)? else {
        return Ok(missing(product_tag(id)));
    };
    let reviews = queries::newest_reviews(session, id)?;
    let others = queries::bought_together(session, id)?;
    let mut html = Html::new(&product.card.name);
    html.text("p", &product.description);
    html.text(
        "p",
        &format!(
            "In {} (/categories/{})",
            product.category_name, product.category
        ),
    );
    html.cards(std::slice::from_ref(&product.card));
    for review in &reviews {
        html.text(
            "blockquote",
            &format!("{}/5 {}", review.rating, review.body),
        );
    }
    html.text("h2", "Often bought together");
    html.cards(&others);
    let mut tags = tags_of(&others);
    tags.push(product_tag(id));
    Ok(html.into_page(tags))
}

fn price(session: &Session<'_>, id: u32) -> Result<Rendered, rusqlite::Error> {
    let Some(price_cents) = queries::price(session, id)? else {
        return Ok(missing(product_tag(id)));
    };
    let mut html = Html(String::new());
    html.price(id, price_cents);
    Ok(html.into_page(vec![product_tag(id)]))
}

fn missing(tag: String) -> Rendered {
    let mut html = Html::new("Not found");
    html.text("p", "The shop has no such page.");
    let mut page = html.into_page(vec![tag]);
    page.answer.found = false;
    // Kept only briefly: made-up numbers must not push real pages out.
    page.time_to_live = Duration::from_secs(5);
    page
}

fn tags_of(cards: &[Card]) -> Vec<String> {
    cards.iter().map(|card| product_tag(card.id)).collect()
}

/// A page under construction. Writing to a `String` cannot fail, so results are dropped.
struct Html(String);

impl Html {
    fn new(title: &str) -> Self {
        let mut html = Self(String::with_capacity(8 * 1024));
        html.0
            .push_str("<!doctype html><meta charset=utf-8><title>Storefront</title>\n");
        html.text("h1", title);
        html
    }

    fn text(&mut self, element: &str, text: &str) {
        let _ = write!(self.0, "<{element}>");
        self.escaped(text);
        let _ = writeln!(self.0, "</{element}>");
    }

    fn price(&mut self, id: u32, price_cents: i64) {
        let _ = writeln!(
            self.0,
            "<b data-product=\"{id}\" data-price-cents=\"{price_cents}\">{}.{:02}</b>",
            price_cents / 100,
            price_cents % 100
        );
    }

    fn cards(&mut self, cards: &[Card]) {
        self.0.push_str("<ol>\n");
        for card in cards {
            let Card {
                id,
                price_cents,
                reviews,
                sold,
                ..
            } = card;
            let _ = write!(
                self.0,
                "<li data-product=\"{id}\" data-price-cents=\"{price_cents}\"><a href=\"/products/{id}\">"
            );
            self.escaped(&card.name);
            self.0.push_str("</a> by ");
            self.escaped(&card.brand);
            let _ = write!(
                self.0,
                " <b>{}.{:02}</b> ",
                price_cents / 100,
                price_cents % 100
            );
            if let Some(rating) = card.rating {
                let _ = write!(self.0, "{rating:.1}/5 ({reviews}) ");
            }
            let _ = writeln!(self.0, "{sold} sold</li>");
        }
        self.0.push_str("</ol>\n");
    }

    fn counts(&mut self, title: &str, counts: &[Count]) {
        self.text("h2", title);
        self.0.push_str("<ul>\n");
        for Count {
            id,
            label,
            products,
        } in counts
        {
            let _ = write!(self.0, "<li data-id=\"{id}\">");
            self.escaped(label);
            let _ = writeln!(self.0, " ({products})</li>");
        }
        self.0.push_str("</ul>\n");
    }

    fn escaped(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                other => self.0.push(other),
            }
        }
    }

    fn into_page(self, tags: Vec<String>) -> Rendered {
        let answer = Answer {
            found: true,
            body: Bytes::from(self.0),
        };
        Rendered {
            answer,
            tags,
            time_to_live: Duration::from_secs(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_from_the_bytes_of_their_keys() {
        let pages = [
            Page::Featured,
            Page::Sidebar,
            Page::Category(3),
            Page::Product(u32::MAX),
            Page::Price(7),
        ];
        for page in pages {
            assert_eq!(Page::from_tier(&page.to_tier()), Some(page));
        }
        for odd in [
            &b""[..],
            b"/products/07",
            b"/products/",
            b"/healthz",
            b"\xff",
        ] {
            assert_eq!(Page::from_tier(odd), None);
        }
    }
}
