-- Made after the rows are in, which is much faster than keeping them up to date row by row.
CREATE INDEX products_by_category   ON products (category_id);
CREATE INDEX products_by_brand      ON products (brand_id);
CREATE INDEX reviews_by_product     ON reviews (product_id);
CREATE INDEX orders_by_day          ON orders (ordered_on);
CREATE INDEX order_lines_by_order   ON order_lines (order_id);
CREATE INDEX order_lines_by_product ON order_lines (product_id);

-- The front page shows the best seller of the month of each of the twelve largest categories.
INSERT INTO featured (position, product_id)
SELECT row_number() OVER (ORDER BY category_id), product_id
FROM (
    SELECT p.category_id, p.id AS product_id,
           row_number() OVER (PARTITION BY p.category_id
                              ORDER BY sum(l.quantity) DESC, p.id) AS place
    FROM orders o
    JOIN order_lines l ON l.order_id = o.id
    JOIN products p    ON p.id = l.product_id
    WHERE o.ordered_on > (SELECT today - 30 FROM shop) AND p.category_id <= 12
    GROUP BY p.id
)
WHERE place = 1;

ANALYZE;
