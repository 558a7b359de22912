-- The shop's tables, with the indexes such tables usually have: the foreign keys that are
-- looked up and the date that is filtered by.
CREATE TABLE shop (
    version  INTEGER NOT NULL,
    products INTEGER NOT NULL,
    today    INTEGER NOT NULL          -- the shop's date, in days since 1970: the same in every run
);
CREATE TABLE categories (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
CREATE TABLE brands (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
CREATE TABLE products (
    id          INTEGER PRIMARY KEY,
    category_id INTEGER NOT NULL REFERENCES categories (id),
    brand_id    INTEGER NOT NULL REFERENCES brands (id),
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0)
);
CREATE TABLE reviews (
    id          INTEGER PRIMARY KEY,
    product_id  INTEGER NOT NULL REFERENCES products (id),
    rating      INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
    written_on  INTEGER NOT NULL,
    body        TEXT    NOT NULL
);
CREATE TABLE orders (
    id         INTEGER PRIMARY KEY,
    ordered_on INTEGER NOT NULL
);
CREATE TABLE order_lines (
    id         INTEGER PRIMARY KEY,
    order_id   INTEGER NOT NULL REFERENCES orders (id),
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity   INTEGER NOT NULL
);
CREATE TABLE featured (
    position   INTEGER PRIMARY KEY,
    product_id INTEGER NOT NULL REFERENCES products (id)
);
