//! The words of the node's page, in French and in English.

use mirabelle_manifests::Instant;
use mirabelle_terminal::bytes;

use crate::care::Alarm;

/// A language of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    French,
    English,
}

macro_rules! words {
    ($($name:ident),* $(,)?) => {
        /// The texts of one language.
        pub(super) struct Words {
            /// The unit of bytes that is written at the end of a number: `B`, or `o` for octets.
            unit: &'static str,
            $(pub(super) $name: &'static str),*
        }
    };
}

words!(
    title,
    skip,
    languages,
    nothing_yet,
    stale,
    complete,
    complete_and_more_comes,
    to_do,
    since,
    freshness,
    catalogue,
    complete_since,
    looked,
    valid_until,
    never,
    last_look_failed,
    disk,
    used,
    left_of,
    machines,
    within_an_hour,
    within_a_day,
    link,
    link_idle,
    link_open,
    link_limited,
    link_yielding,
    link_closed,
    at_most,
    waiting,
    budget,
    spent_of,
    coming,
    software,
    version,
    size,
    state,
    system,
    crossed,
    holding,
    releases,
    in_good_time,
    next,
    under_way,
    failed,
    no_room,
    as_of,
    again,
    day,
    most,
);

const FRENCH: Words = Words {
    unit: "o",
    title: "Nœud du collège",
    skip: "Aller au contenu",
    languages: "Langue",
    nothing_yet: "Rien n’est encore servi : le premier catalogue arrive.",
    stale: "Ce qui est servi n’est plus à jour : le rectorat n’a pas été joint à temps.",
    complete: "Tout est là : chaque poste trouve ici ce qui lui est destiné.",
    complete_and_more_comes: "Le dernier catalogue complet est servi ; le suivant arrive.",
    to_do: "À faire",
    since: "depuis le",
    freshness: "Fraîcheur",
    catalogue: "Catalogue",
    complete_since: "Complet depuis",
    looked: "Dernière vérification",
    valid_until: "Valable jusqu’au",
    never: "jamais",
    last_look_failed: "La dernière vérification a échoué",
    disk: "Disque",
    used: "Occupé :",
    left_of: "libres sur",
    machines: "Postes",
    within_an_hour: "Vus depuis une heure",
    within_a_day: "Vus depuis un jour",
    link: "Liaison",
    link_idle: "Au repos.",
    link_open: "Ouverte.",
    link_limited: "Limitée par l’horaire.",
    link_yielding: "Cède la place.",
    link_closed: "Fermée.",
    at_most: "au plus",
    waiting: "file d’attente de",
    budget: "Quota du jour :",
    spent_of: "utilisés aujourd’hui sur",
    coming: "À venir",
    software: "Logiciel",
    version: "Version",
    size: "Taille",
    state: "État",
    system: "Système",
    crossed: "Passé par la liaison",
    holding: "Ce qu’il garde",
    releases: "versions",
    in_good_time: "le moment venu",
    next: "en attente",
    under_way: "en cours",
    failed: "a échoué, sera réessayé",
    no_room: "pas de place",
    as_of: "État au",
    again: "Actualiser",
    day: "Octets reçus par la liaison, les dernières 24 heures",
    most: "au plus",
};

const ENGLISH: Words = Words {
    unit: "B",
    title: "Node of college",
    skip: "Skip to content",
    languages: "Language",
    nothing_yet: "Nothing is served yet: the first catalogue is on its way.",
    stale: "What is served is no longer fresh: the authority was not reached in time.",
    complete: "Everything is here: each workstation finds what is meant for it.",
    complete_and_more_comes: "The last complete catalogue is served; the next one is on its way.",
    to_do: "To do",
    since: "since",
    freshness: "Freshness",
    catalogue: "Catalogue",
    complete_since: "Complete since",
    looked: "Last look",
    valid_until: "Valid until",
    never: "never",
    last_look_failed: "The last look failed",
    disk: "Disk",
    used: "Used:",
    left_of: "left of",
    machines: "Workstations",
    within_an_hour: "Seen within an hour",
    within_a_day: "Seen within a day",
    link: "Link",
    link_idle: "Idle.",
    link_open: "Open.",
    link_limited: "Limited by the hours.",
    link_yielding: "Giving way.",
    link_closed: "Closed.",
    at_most: "at most",
    waiting: "a queue of",
    budget: "The day's bytes:",
    spent_of: "spent today of",
    coming: "On its way",
    software: "Software",
    version: "Version",
    size: "Size",
    state: "State",
    system: "System",
    crossed: "Crossed the link",
    holding: "What it holds",
    releases: "releases",
    in_good_time: "in good time",
    next: "waiting",
    under_way: "under way",
    failed: "failed, will be tried again",
    no_room: "no room",
    as_of: "As of",
    again: "Refresh",
    day: "Bytes received over the link, the last 24 hours",
    most: "at most",
};

impl Words {
    /// A number of bytes, to three digits, as it is written in the language: `1,23 Mo`.
    pub(super) fn bytes(&self, count: u64) -> String {
        let text = bytes(count);
        if self.unit == "B" {
            return text;
        }
        format!("{}{}", text.trim_end_matches('B').replace('.', ","), self.unit)
    }
}

impl Language {
    /// What the address says, or else the browser.
    pub(super) fn of(query: Option<&str>, asked: Option<&str>) -> Self {
        match query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("lang="))) {
            Some("fr") => return Self::French,
            Some("en") => return Self::English,
            _ => {}
        }
        let mut tags = asked.into_iter().flat_map(|asked| asked.split(',')).map(str::trim);
        tags.find_map(|tag| match tag.get(..2)? {
            "fr" => Some(Self::French),
            "en" => Some(Self::English),
            _ => None,
        })
        .unwrap_or(Self::French)
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::French => "fr",
            Self::English => "en",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::French => "Français",
            Self::English => "English",
        }
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::French => &FRENCH,
            Self::English => &ENGLISH,
        }
    }

    /// What is the matter, and what to do.
    pub(super) fn alarm(self, alarm: &Alarm, time: impl Fn(Instant) -> String) -> (String, &'static str) {
        if self == Self::English {
            return (format!("{}.", alarm.what()), alarm.to_do());
        }
        match alarm {
            Alarm::Expiry { role, at, .. } => (
                format!("Ce que le rôle « {role} » a signé expire le {}.", time(*at)),
                "À faire signer de nouveau par qui détient les clés de ce rôle.",
            ),
            Alarm::Stale { since } => (
                format!("Ce qui est servi n’est plus à jour depuis le {}.", time(*since)),
                "Voir si l’éditeur renouvelle l’horodatage, et si la liaison passe.",
            ),
            Alarm::NoUpstream { since } => (
                format!("Aucune source n’a répondu correctement depuis le {}.", time(*since)),
                "Voir si la liaison passe ; `mirabelle-node status` dit ce que chaque source répond.",
            ),
            Alarm::Clock { seems, at_least } => (
                format!("L’horloge indique {}, alors qu’il est au moins {}.", time(*seems), time(*at_least)),
                "Régler l’horloge, ou voir pourquoi le réseau ne la règle pas.",
            ),
            Alarm::NoRoom { releases } => (
                format!("Il n’y a pas de place pour {}.", releases.join(", ")),
                "`mirabelle-node doctor` dit ce qui prend la place ; augmenter le quota ou déployer moins ici.",
            ),
            Alarm::LittleRoom => (
                "Il reste moins de 5 % de la place.".to_owned(),
                "`mirabelle-node doctor` dit ce qui prend la place ; augmenter le quota ou déployer moins ici.",
            ),
            Alarm::DiskFailing { device } => (
                format!("Le disque {device} annonce sa panne."),
                "Le remplacer ; un `mirabelle-node export` préalable évite de tout refaire passer par la liaison.",
            ),
            Alarm::DiskErrors { files } => (
                format!("{files} fichiers n’ont pas pu être lus sur le disque."),
                "Ils sont demandés de nouveau ; si cela revient, remplacer le disque.",
            ),
        }
    }
}
