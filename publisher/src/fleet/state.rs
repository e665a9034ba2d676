//! What machines reported, in a database: SQLite in a file of the repository, or PostgreSQL where that is configured.
//!
//! One interface, one set of queries, one set of migrations: whatever both understand. A batch of reports is one transaction, so that
//! it is stored whole or not at all; stored twice it counts once, by the numbers of its machines.

mod daily;
mod rollouts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use mirabelle_fleet::{Event, Last, Report, SignedReport, Standing};
use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::{Digest, Instant, SiteId};
use mirabelle_terminal::{Failure, Kind, OrFail, Sounds};
use serde::Serialize;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyPool, Row};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

pub(crate) use self::daily::Daily;

/// The name of the engine that needs nothing.
pub(crate) const EMBEDDED: &str = "embedded";
/// Connections: few write, and reading is short.
const CONNECTIONS: u32 = 8;
/// How long a database may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys that wait for an operator, of one college: more is somebody who knocks without end.
const MAX_KNOCKS: i64 = 20;

/// Why the state cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("its tables cannot be brought up to date")]
    Tables(#[from] MigrateError),
    #[error("a document in it cannot be read")]
    Document(#[from] serde_json::Error),
    #[error("a row in it cannot be read")]
    Row,
}

impl Sounds for Error {
    fn kind(&self) -> Kind {
        Kind::Machine
    }
}

/// The state of the fleet.
#[derive(Clone)]
pub(crate) struct State {
    pool: AnyPool,
    begin: &'static str,
}

/// The key that speaks for a college's node, or wants to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeKey {
    pub(crate) college: String,
    pub(crate) key: String,
    /// Since when it is accepted; nothing while it waits.
    pub(crate) accepted: Option<Instant>,
}

/// A machine, as it reported last.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineRow {
    pub(crate) college: String,
    /// Empty for a node.
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) enrolled: Instant,
    pub(crate) last_report: Instant,
    pub(crate) reports: i64,
    /// Reports that never came.
    pub(crate) missing: i64,
    /// Its inventory, or the node's state; empty before the first.
    pub(crate) state: serde_json::Value,
}

/// An event, as it was reported.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EventRow {
    pub(crate) number: i64,
    pub(crate) at: Instant,
    pub(crate) received: Instant,
    pub(crate) kind: String,
    pub(crate) report: serde_json::Value,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Taken {
    /// Reports that were stored now.
    pub(crate) stored: u64,
    /// Reports that were stored before.
    pub(crate) known: u64,
    /// Reports that cannot be read, are not signed by their machine, or are of another college.
    pub(crate) refused: u64,
    /// Keys of which the first report is missing.
    pub(crate) unknown: BTreeSet<KeyId>,
}

/// What is known of a key while a batch is taken.
struct Known {
    key: PublicKey,
    name: String,
    last: Last,
}

impl State {
    /// Opens the engine that `engine` names: [`EMBEDDED`], a file below `directory`, or `postgres://…`; and brings its tables up to date.
    pub(crate) async fn open(engine: &str, directory: &Path) -> Result<Self, Failure> {
        let is_embedded = engine == EMBEDDED;
        let (url, shown) = if is_embedded {
            let path = directory.join("fleet.db");
            (format!("sqlite://{}?mode=rwc", path.display()), path.display().to_string())
        } else if engine.starts_with("postgres://") || engine.starts_with("postgresql://") {
            // Without the password that may be in it.
            let shown = engine.rsplit_once('@').map_or(engine, |(_, host)| host);
            (engine.to_owned(), shown.to_owned())
        } else {
            return Err(Failure::usage("the fleet's state is `embedded` or at `postgres://…`"));
        };
        sqlx::any::install_default_drivers();
        let what = || format!("cannot open the fleet's state in {shown}");
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
        let options = options.after_connect(move |connection, _| {
            Box::pin(async move {
                if is_embedded {
                    // What is answered for is on the disk; readers do not wait for a writer.
                    for pragma in ["journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000"] {
                        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
                            .execute(&mut *connection)
                            .await?;
                    }
                }
                Ok(())
            })
        });
        let opening = async {
            let pool = options.connect(&url).await?;
            MIGRATIONS.run(&pool).await?;
            Ok::<_, Error>(pool)
        };
        let pool = opening.await.or_fail(what)?;
        // SQLite would refuse a transaction that read before it writes, where another wrote meanwhile.
        Ok(Self { pool, begin: if is_embedded { "BEGIN IMMEDIATE" } else { "BEGIN" } })
    }

    /// The key that speaks for a college's node.
    pub(crate) async fn node_key(&self, college: &SiteId) -> Result<Option<PublicKey>, Error> {
        let row = sqlx::query("SELECT public_key FROM nodes WHERE college = $1")
            .bind(college.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| document(&row, "public_key")).transpose()
    }

    /// Takes note of a key that says it is a college's node.
    pub(crate) async fn knock(&self, college: &SiteId, key: &PublicKey, now: Instant) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with(self.begin).await?;
        let waiting: i64 = sqlx::query("SELECT COUNT(*) AS waiting FROM knocks WHERE college = $1")
            .bind(college.as_str())
            .fetch_one(&mut *transaction)
            .await?
            .try_get("waiting")?;
        if waiting < MAX_KNOCKS {
            sqlx::query(
                "INSERT INTO knocks (college, key_id, public_key, first_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(college.as_str())
            .bind(key.id().as_str())
            .bind(written(key)?)
            .bind(now.as_second())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The keys of nodes, and those that wait.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeKey>, Error> {
        let rows = sqlx::query(
            "SELECT college, key_id, accepted FROM nodes UNION ALL SELECT college, key_id, -1 FROM knocks ORDER BY 1, 3 DESC, 2",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let accepted: i64 = row.try_get("accepted")?;
                Ok(NodeKey {
                    college: row.try_get("college")?,
                    key: row.try_get("key_id")?,
                    accepted: (accepted >= 0).then(|| second(accepted)),
                })
            })
            .collect()
    }

    /// From now on the key that begins so speaks for the college's node; false when no single one waits that does.
    pub(crate) async fn accept_node(
        &self,
        college: &SiteId,
        begins: &str,
        now: Instant,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin_with(self.begin).await?;
        let waiting = sqlx::query("SELECT key_id, public_key FROM knocks WHERE college = $1")
            .bind(college.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        let mut found = Vec::new();
        for row in &waiting {
            let id: String = row.try_get("key_id")?;
            if id.starts_with(begins) {
                found.push((id, row.try_get::<String, _>("public_key")?));
            }
        }
        let [(id, key)] = found.as_slice() else { return Ok(false) };
        sqlx::query(
            "INSERT INTO nodes (college, key_id, public_key, accepted) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (college) DO UPDATE SET key_id = $2, public_key = $3, accepted = $4",
        )
        .bind(college.as_str())
        .bind(id)
        .bind(key)
        .bind(now.as_second())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM knocks WHERE college = $1")
            .bind(college.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// No key speaks for the college's node any more; false when none did.
    pub(crate) async fn remove_node(&self, college: &SiteId) -> Result<bool, Error> {
        let removed = sqlx::query("DELETE FROM nodes WHERE college = $1")
            .bind(college.as_str())
            .execute(&self.pool)
            .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Stores the reports of a college's machines that are new, all of them or none.
    pub(crate) async fn take(&self, college: &SiteId, lines: &str, now: Instant) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        let mut machines: BTreeMap<KeyId, Option<Known>> = BTreeMap::new();
        let mut transaction = self.pool.begin_with(self.begin).await?;
        for line in lines.lines() {
            let Ok(signed) = SignedReport::parse(line.as_bytes()) else {
                taken.refused += 1;
                continue;
            };
            let id = signed.key().clone();
            if !machines.contains_key(&id) {
                let row = sqlx::query(
                    "SELECT public_key, name, last_number, last_digest FROM machines WHERE key_id = $1 AND college = $2",
                )
                .bind(id.as_str())
                .bind(college.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
                machines.insert(id.clone(), row.as_ref().map(known).transpose()?);
            }
            let machine = machines.get_mut(&id).and_then(Option::as_mut);
            let Some(machine) = machine else {
                match signed.verify_first() {
                    Ok((report, key)) if report.college == *college && key.id() == id => {
                        let new = enrol(&mut transaction, &signed, &report, &key, now).await?;
                        // A key of another college stays there.
                        taken.stored += u64::from(new.is_some());
                        taken.refused += u64::from(new.is_none());
                        machines.insert(id, new);
                    }
                    Ok(_) => taken.refused += 1,
                    Err(_) => {
                        taken.unknown.insert(id);
                    }
                }
                continue;
            };
            let report = signed.verify(&machine.key).ok().filter(|report| {
                report.college == *college
                    && report.machine.as_ref().map_or("", |name| name.as_str()) == machine.name
            });
            let Some(report) = report else {
                taken.refused += 1;
                continue;
            };
            match Standing::after(Some(machine.last), report.number, signed.digest()) {
                Standing::Known => taken.known += 1,
                Standing::Forked => taken.refused += 1,
                Standing::Next => {
                    store(&mut transaction, &signed, &report, 0, now).await?;
                    machine.last = Last { number: report.number, digest: signed.digest() };
                    taken.stored += 1;
                }
                Standing::Gap(missing) => {
                    store(&mut transaction, &signed, &report, missing, now).await?;
                    machine.last = Last { number: report.number, digest: signed.digest() };
                    taken.stored += 1;
                }
            }
        }
        transaction.commit().await?;
        Ok(taken)
    }

    /// The machines of a college, or of all, its node first; those that others took the place of are left out.
    pub(crate) async fn machines(&self, college: Option<&SiteId>) -> Result<Vec<MachineRow>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM machines WHERE replaced = 0 AND ($1 = '' OR college = $1) ORDER BY college, name",
        )
        .bind(college.map_or("", |college| college.as_str()))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let state: String = row.try_get("state")?;
                Ok(MachineRow {
                    college: row.try_get("college")?,
                    name: row.try_get("name")?,
                    key: row.try_get("key_id")?,
                    enrolled: second(row.try_get("enrolled")?),
                    last_report: second(row.try_get("last_at")?),
                    reports: row.try_get("last_number")?,
                    missing: row.try_get("missing")?,
                    state: serde_json::from_str(&state).unwrap_or_default(),
                })
            })
            .collect()
    }

    /// The last events of a machine, the newest first.
    pub(crate) async fn events(&self, key: &str, most: i64) -> Result<Vec<EventRow>, Error> {
        let rows = sqlx::query("SELECT * FROM events WHERE key_id = $1 ORDER BY number DESC LIMIT $2")
            .bind(key)
            .bind(most)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let report: String = row.try_get("report")?;
                Ok(EventRow {
                    number: row.try_get("number")?,
                    at: second(row.try_get("at")?),
                    received: second(row.try_get("received")?),
                    kind: row.try_get("kind")?,
                    report: serde_json::from_str(&report).unwrap_or_default(),
                })
            })
            .collect()
    }
}

type Transaction<'a> = sqlx::Transaction<'a, sqlx::Any>;

/// Makes a key known; `None` when it is known at another college.
async fn enrol(
    transaction: &mut Transaction<'_>,
    signed: &SignedReport,
    report: &Report,
    key: &PublicKey,
    now: Instant,
) -> Result<Option<Known>, Error> {
    let name = report.machine.as_ref().map_or_else(String::new, ToString::to_string);
    sqlx::query("UPDATE machines SET replaced = 1 WHERE college = $1 AND name = $2")
        .bind(report.college.as_str())
        .bind(&name)
        .execute(&mut **transaction)
        .await?;
    let inserted = sqlx::query(
        "INSERT INTO machines (key_id, public_key, college, name, replaced, enrolled, last_number, last_digest, last_at, last_received, missing, state) \
         VALUES ($1, $2, $3, $4, 0, $5, 0, '', $5, $6, 0, '') ON CONFLICT DO NOTHING",
    )
    .bind(key.id().as_str())
    .bind(written(key)?)
    .bind(report.college.as_str())
    .bind(&name)
    .bind(report.at.as_second())
    .bind(now.as_second())
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    store(transaction, signed, report, 0, now).await?;
    Ok(Some(Known { key: key.clone(), name, last: Last { number: report.number, digest: signed.digest() } }))
}

/// Stores a report that comes next, and what the machine is now.
async fn store(
    transaction: &mut Transaction<'_>,
    signed: &SignedReport,
    report: &Report,
    missing: u64,
    now: Instant,
) -> Result<(), Error> {
    let number = i64::try_from(report.number).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO events (key_id, number, college, at, received, kind, report) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(signed.key().as_str())
    .bind(number)
    .bind(report.college.as_str())
    .bind(report.at.as_second())
    .bind(now.as_second())
    .bind(report.event.name())
    .bind(signed.text())
    .execute(&mut **transaction)
    .await?;
    rollouts::note(transaction, signed.key(), report, now).await?;
    daily::note(transaction, signed.key(), report).await?;
    let state = match &report.event {
        Event::Inventory { inventory } => written(inventory)?,
        Event::Node { state } => written(state)?,
        _ => String::new(),
    };
    sqlx::query(
        "UPDATE machines SET last_number = $2, last_digest = $3, last_at = $4, last_received = $5, missing = missing + $6, \
         state = CASE WHEN $7 = '' THEN state ELSE $7 END WHERE key_id = $1",
    )
    .bind(signed.key().as_str())
    .bind(number)
    .bind(signed.digest().to_string())
    .bind(report.at.as_second())
    .bind(now.as_second())
    .bind(i64::try_from(missing).unwrap_or(i64::MAX))
    .bind(state)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn known(row: &AnyRow) -> Result<Known, Error> {
    let (number, digest): (i64, String) = (row.try_get("last_number")?, row.try_get("last_digest")?);
    let digest: Digest = digest.parse().map_err(|_| Error::Row)?;
    let number = u64::try_from(number).map_err(|_| Error::Row)?;
    Ok(Known { key: document(row, "public_key")?, name: row.try_get("name")?, last: Last { number, digest } })
}

fn document<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    Ok(serde_json::from_str(&text)?)
}

fn written(value: &impl Serialize) -> Result<String, Error> {
    Ok(serde_json::to_string(value)?)
}

fn second(second: i64) -> Instant {
    Instant::from_second(second).unwrap_or(Instant::UNIX_EPOCH)
}
