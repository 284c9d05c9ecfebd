"""A shop's tables in a SQLite file, made by plain SQL: constraints, triggers, keys of several columns."""

from __future__ import annotations

import sqlite3
from pathlib import Path

SHOP = """
CREATE TABLE customer (
    id INTEGER PRIMARY KEY,
    email TEXT NOT NULL COLLATE NOCASE CONSTRAINT one_account UNIQUE,
    name VARCHAR(50) NOT NULL DEFAULT 'nobody',
    active BOOLEAN NOT NULL DEFAULT 1,
    balance NUMERIC CONSTRAINT no_debt CHECK (balance >= 0),
    initial TEXT GENERATED ALWAYS AS (substr(name, 1, 1)) VIRTUAL
);
CREATE INDEX customer_name ON customer (name);
CREATE INDEX customer_balance ON customer (balance);
CREATE TABLE product (
    sku TEXT PRIMARY KEY, title TEXT, price REAL, photo BLOB, extra, rev INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE TABLE line (
    customer INTEGER NOT NULL REFERENCES customer (id),
    pos INTEGER NOT NULL,
    sku TEXT REFERENCES product (sku) DEFERRABLE INITIALLY DEFERRED,
    amount INT DEFAULT 1,
    PRIMARY KEY (customer, pos)
) WITHOUT ROWID;
CREATE TRIGGER closed BEFORE INSERT ON line WHEN NEW.amount > 100
    BEGIN SELECT RAISE(ABORT, 'too many'); END;
CREATE TRIGGER silent BEFORE UPDATE OF amount ON line WHEN NEW.amount = 13 BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER angry BEFORE UPDATE OF amount ON line WHEN NEW.amount = 66
    BEGIN SELECT RAISE(ROLLBACK, 'all of it'); END;
CREATE TABLE log (at DATETIME, message TEXT);
CREATE VIEW spender AS SELECT customer, sum(amount) AS amount FROM line GROUP BY customer;
CREATE VIEW doubled AS
    SELECT id AS customer, name FROM customer UNION ALL SELECT id, upper(name) FROM customer;
INSERT INTO customer (id, email, name, active, balance) VALUES
    (1, 'ann@example.com', 'Ann', 1, 10), (2, 'Bob@example.com', 'bob', 0, 2.5),
    (9, 'cid@example.com', 'Cid', 1, NULL), (10, 'dan@example.com', 'ann', 1, 0);
INSERT INTO product (sku, title, price, photo, extra) VALUES
    ('a', 'Apple', 1.5, x'01ff', 7), ('A', 'APPLE', 2, NULL, '7'), ('b', NULL, 3.25, x'', x'37');
INSERT INTO line (customer, pos, sku, amount) VALUES (1, 1, 'a', 2), (1, 2, 'b', 1), (2, 1, 'a', 5);
"""


def make_shop(path: Path) -> None:
    """Make the file."""
    connection = sqlite3.connect(path)
    connection.executescript(SHOP)
    connection.close()
