//! What rollouts ask of the state: how each workstation stands with a release, and what happened in a rollout so far.

use std::collections::BTreeMap;

use mirabelle_fleet::{Event, Inventory, Power, Report, Step, Workstation};
use mirabelle_keys::KeyId;
use mirabelle_manifests::{CatalogueEntry, Digest, Instant, SiteId};
use sqlx::Row;

use super::{Error, State, Transaction, document, second, written};

/// Takes note of what a report says of releases.
pub(super) async fn note(
    transaction: &mut Transaction<'_>,
    key: &KeyId,
    report: &Report,
    now: Instant,
) -> Result<(), Error> {
    let at = report.at.as_second();
    match &report.event {
        Event::Changed { package, to: Some(version), .. } => {
            sqlx::query(
                "INSERT INTO installs (key_id, package, version, at, started) \
                 SELECT $1, $2, $3, $4, CASE WHEN last_on > $4 THEN 1 ELSE 0 END FROM machines WHERE key_id = $1 \
                 ON CONFLICT (key_id, package) DO UPDATE SET version = excluded.version, at = excluded.at, started = excluded.started",
            )
            .bind(key.as_str())
            .bind(package.as_str())
            .bind(version.to_string())
            .bind(at)
            .execute(&mut **transaction)
            .await?;
        }
        Event::Changed { package, to: None, .. } => {
            sqlx::query("DELETE FROM installs WHERE key_id = $1 AND package = $2")
                .bind(key.as_str())
                .bind(package.as_str())
                .execute(&mut **transaction)
                .await?;
        }
        Event::Failed { release, why } => {
            sqlx::query(
                "INSERT INTO failures (key_id, release_digest, at, why) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(key.as_str())
            .bind(release.to_string())
            // When it was heard of: an operator who resumes has seen what came before, whatever a machine's clock says.
            .bind(now.as_second())
            .bind(why)
            .execute(&mut **transaction)
            .await?;
        }
        Event::Power { power: Power::On } => {
            sqlx::query("UPDATE installs SET started = 1 WHERE key_id = $1 AND started = 0 AND at < $2")
                .bind(key.as_str())
                .bind(at)
                .execute(&mut **transaction)
                .await?;
            sqlx::query("UPDATE machines SET last_on = $2 WHERE key_id = $1 AND last_on < $2")
                .bind(key.as_str())
                .bind(at)
                .execute(&mut **transaction)
                .await?;
        }
        _ => {}
    }
    Ok(())
}

impl State {
    /// Every workstation and how it stands with a release, and when each college's node was heard of last.
    pub(crate) async fn workstations(
        &self,
        entry: &CatalogueEntry,
    ) -> Result<(Vec<Workstation>, BTreeMap<SiteId, Instant>), Error> {
        let rows = sqlx::query(
            "SELECT m.college AS college, m.name AS name, m.state AS state, m.last_received AS heard, \
             COALESCE(i.at, -1) AS installed, COALESCE(i.started, 0) AS started, COALESCE(f.at, -1) AS failed, COALESCE(f.why, '') AS why \
             FROM machines m \
             LEFT JOIN installs i ON i.key_id = m.key_id AND i.package = $1 AND i.version = $2 \
             LEFT JOIN failures f ON f.key_id = m.key_id AND f.release_digest = $3 \
             WHERE m.replaced = 0",
        )
        .bind(entry.listing.name.as_str())
        .bind(entry.listing.version.to_string())
        .bind(entry.digest.to_string())
        .fetch_all(&self.pool)
        .await?;
        let (mut workstations, mut nodes) = (Vec::new(), BTreeMap::new());
        for row in &rows {
            let (college, name): (String, String) = (row.try_get("college")?, row.try_get("name")?);
            let college: SiteId = college.parse().map_err(|_| Error::Row)?;
            let heard = second(row.try_get("heard")?);
            if name.is_empty() {
                nodes.insert(college, heard);
                continue;
            }
            let state: String = row.try_get("state")?;
            if state.is_empty() {
                continue;
            }
            let inventory: Inventory = document(row, "state")?;
            let machine = inventory.machine(college, name.parse().map_err(|_| Error::Row)?);
            let Some(machine) = machine else { continue };
            let known = |column| {
                let at: i64 = row.try_get(column)?;
                Ok::<_, Error>((at >= 0).then(|| second(at)))
            };
            let started: i64 = row.try_get("started")?;
            let why: String = row.try_get("why")?;
            workstations.push(Workstation {
                machine,
                heard,
                installed: known("installed")?,
                started: started != 0,
                failed: known("failed")?.map(|at| (at, why)),
            });
        }
        Ok((workstations, nodes))
    }

    /// What happened in the rollout of a release, in order.
    pub(crate) async fn story(&self, release: Digest) -> Result<Vec<(Instant, Step)>, Error> {
        let rows =
            sqlx::query("SELECT at, step FROM rollout_steps WHERE release_digest = $1 ORDER BY number")
                .bind(release.to_string())
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok((second(row.try_get("at")?), document(row, "step")?))).collect()
    }

    /// Goes on with the story of a rollout.
    pub(crate) async fn tell(&self, release: Digest, steps: &[Step], now: Instant) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with(self.begin).await?;
        for step in steps {
            sqlx::query(
                "INSERT INTO rollout_steps (release_digest, number, at, step) \
                 SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3 FROM rollout_steps WHERE release_digest = $1",
            )
            .bind(release.to_string())
            .bind(now.as_second())
            .bind(written(step)?)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }
}
