//! What is stored, and the statements that store it.
//!
//! Invariant: each request is one statement. So a batch of them can share a transaction, and one
//! that fails leaves nothing half done.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};
use serde::{Deserialize, Serialize};

/// Raised when a table changes.
const VERSION: i64 = 1;
/// Notes on a page of the list.
pub(crate) const PAGE: usize = 100;
/// Changes that are remembered for clients that reconnect.
pub(crate) const REMEMBERED: i64 = 1000;

/// Triggers record each change, whichever process makes it.
const TABLES: &str = "
    CREATE TABLE notes(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL, body TEXT NOT NULL, changed INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE attachments(
        note INTEGER PRIMARY KEY REFERENCES notes(id) ON DELETE CASCADE,
        kind TEXT NOT NULL, bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE changes(number INTEGER PRIMARY KEY, kind TEXT NOT NULL, note INTEGER NOT NULL) STRICT;
    CREATE TRIGGER note_created AFTER INSERT ON notes
        BEGIN INSERT INTO changes(kind, note) VALUES ('created', new.id); END;
    CREATE TRIGGER note_changed AFTER UPDATE ON notes
        BEGIN INSERT INTO changes(kind, note) VALUES ('changed', new.id); END;
    CREATE TRIGGER note_deleted AFTER DELETE ON notes
        BEGIN INSERT INTO changes(kind, note) VALUES ('deleted', old.id); END;
    CREATE TRIGGER attachment_created AFTER INSERT ON attachments
        BEGIN INSERT INTO changes(kind, note) VALUES ('changed', new.note); END;
    CREATE TRIGGER attachment_changed AFTER UPDATE ON attachments
        BEGIN INSERT INTO changes(kind, note) VALUES ('changed', new.note); END;
    PRAGMA user_version = 1;
";

/// A note as clients send it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) body: String,
}

/// A note as clients get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    pub(crate) id: i64,
    pub(crate) title: String,
    /// Not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// Seconds since 1970.
    pub(crate) changed: i64,
    /// The length of the attachment.
    pub(crate) attachment: Option<i64>,
}

/// A page of the list, the newest note first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Page {
    pub(crate) notes: Vec<Note>,
    /// For the next page: `?before=` this.
    pub(crate) next: Option<i64>,
}

/// One change. The numbers have no gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    #[serde(skip)]
    pub(crate) number: i64,
    #[serde(skip)]
    pub(crate) kind: String,
    pub(crate) note: i64,
}

/// Settings of a connection and, in a new file, the tables.
pub(crate) fn prepare(connection: &mut Connection) -> std::result::Result<(), Box<dyn std::error::Error>> {
    // FULL: a commit returns when the disk has it, so that an answer survives a loss of power.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    match transaction.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
        0 => transaction.execute_batch(TABLES)?,
        VERSION => {}
        other => return Err(format!("the database has version {other}, this program knows {VERSION}").into()),
    }
    Ok(transaction.commit()?)
}

const COLUMNS: &str = "id, title, changed, (SELECT length(bytes) FROM attachments WHERE note = id)";

fn note(row: &Row<'_>) -> Result<Note> {
    let body = row.get("body").ok();
    Ok(Note { id: row.get(0)?, title: row.get(1)?, body, changed: row.get(2)?, attachment: row.get(3)? })
}

pub(crate) fn list(connection: &Connection, before: i64) -> Result<Page> {
    let sql = format!("SELECT {COLUMNS} FROM notes WHERE id < ? ORDER BY id DESC LIMIT ?");
    let mut statement = connection.prepare(&sql)?;
    let notes = statement.query_map(params![before, PAGE as i64], note)?.collect::<Result<Vec<_>>>()?;
    let next = notes.last().filter(|_| notes.len() == PAGE).map(|last| last.id);
    Ok(Page { notes, next })
}

pub(crate) fn read(connection: &Connection, id: i64) -> Result<Option<Note>> {
    connection.query_row(&format!("SELECT {COLUMNS}, body FROM notes WHERE id = ?"), [id], note).optional()
}

pub(crate) fn create(connection: &Connection, draft: &Draft) -> Result<Note> {
    let sql =
        "INSERT INTO notes(title, body, changed) VALUES (?, ?, unixepoch()) RETURNING id, title, changed, NULL, body";
    connection.query_row(sql, params![draft.title, draft.body], note)
}

pub(crate) fn replace(connection: &Connection, id: i64, draft: &Draft) -> Result<Option<Note>> {
    let sql =
        format!("UPDATE notes SET title = ?, body = ?, changed = unixepoch() WHERE id = ? RETURNING {COLUMNS}, body");
    connection.query_row(&sql, params![draft.title, draft.body, id], note).optional()
}

/// Returns whether there was such a note.
pub(crate) fn delete(connection: &Connection, id: i64) -> Result<bool> {
    connection.execute("DELETE FROM notes WHERE id = ?", [id]).map(|count| count > 0)
}

/// Returns whether there is such a note.
pub(crate) fn attach(connection: &Connection, id: i64, kind: &str, bytes: &[u8]) -> Result<bool> {
    let sql = "INSERT INTO attachments(note, kind, bytes) SELECT id, ?, ? FROM notes WHERE id = ?
               ON CONFLICT(note) DO UPDATE SET kind = excluded.kind, bytes = excluded.bytes";
    connection.execute(sql, params![kind, bytes, id]).map(|count| count > 0)
}

pub(crate) fn attachment(connection: &Connection, id: i64) -> Result<Option<(String, Vec<u8>)>> {
    let sql = "SELECT kind, bytes FROM attachments WHERE note = ?";
    connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The changes after this number, as far as they are remembered.
pub(crate) fn changes(connection: &Connection, after: i64) -> Result<Vec<Change>> {
    let mut statement =
        connection.prepare("SELECT number, kind, note FROM changes WHERE number > ? ORDER BY number")?;
    let change = |row: &Row<'_>| Ok(Change { number: row.get(0)?, kind: row.get(1)?, note: row.get(2)? });
    statement.query_map([after], change)?.collect()
}

/// The number of the last change.
pub(crate) fn last_change(connection: &Connection) -> Result<i64> {
    connection.query_row("SELECT coalesce(max(number), 0) FROM changes", [], |row| row.get(0))
}

/// Forgets old changes.
pub(crate) fn forget(connection: &Connection) -> Result<()> {
    let sql = "DELETE FROM changes WHERE number <= (SELECT max(number) FROM changes) - ?";
    connection.execute(sql, [REMEMBERED]).map(drop)
}
