//! A catalogue to try the store with: small programs under the names of what colleges use, with icons, pictures and words.

use std::fmt::Write as _;

use crate::App;

/// Name, title, summaries in French and English, category, subject, words to be found by, colour.
const SAMPLES: [[&str; 8]; 16] = [
    [
        "geogebra",
        "GeoGebra",
        "Géométrie, algèbre et tableur dans une même fenêtre.",
        "Geometry, algebra and a spreadsheet in one window.",
        "Education",
        "mathematics",
        "géométrie figures fonctions",
        "#9a5fd0",
    ],
    [
        "scratch",
        "Scratch",
        "Programmer des jeux et des histoires avec des blocs.",
        "Program games and stories with blocks.",
        "Development",
        "technology",
        "programmation blocs robot",
        "#e8902c",
    ],
    [
        "libreoffice",
        "LibreOffice",
        "Écrire, calculer et présenter.",
        "Write, calculate and present.",
        "Office",
        "french",
        "traitement de texte tableur diaporama",
        "#2b8a3e",
    ],
    [
        "audacity",
        "Audacity",
        "Enregistrer et monter du son.",
        "Record and edit sound.",
        "AudioVideo",
        "music",
        "son voix micro",
        "#d9480f",
    ],
    [
        "musescore",
        "MuseScore",
        "Écrire et écouter une partition.",
        "Write and hear a score.",
        "AudioVideo",
        "music",
        "partition notes chorale",
        "#1971c2",
    ],
    [
        "gimp",
        "GIMP",
        "Retoucher des photos et composer des images.",
        "Retouch photos and compose images.",
        "Graphics",
        "arts",
        "dessin photo image",
        "#8c7355",
    ],
    [
        "inkscape",
        "Inkscape",
        "Dessiner des affiches et des schémas.",
        "Draw posters and diagrams.",
        "Graphics",
        "arts",
        "dessin vectoriel affiche",
        "#343a40",
    ],
    [
        "stellarium",
        "Stellarium",
        "Observer le ciel de ce soir, ou d’il y a mille ans.",
        "Watch tonight’s sky, or that of a thousand years ago.",
        "Science",
        "physics-chemistry",
        "étoiles planètes astronomie",
        "#364fc7",
    ],
    [
        "avogadro",
        "Atelier de molécules",
        "Construire des molécules et les tourner.",
        "Build molecules and turn them.",
        "Science",
        "physics-chemistry",
        "chimie atomes molécule",
        "#0b7285",
    ],
    [
        "thonny",
        "Thonny",
        "Apprendre Python pas à pas.",
        "Learn Python step by step.",
        "Development",
        "technology",
        "python code",
        "#5f3dc4",
    ],
    [
        "marble",
        "Globe et cartes",
        "Parcourir la Terre et les cartes anciennes.",
        "Explore the Earth and old maps.",
        "Education",
        "history-geography",
        "carte géographie relief",
        "#2f9e44",
    ],
    [
        "frise",
        "Frise du temps",
        "Placer des événements sur une frise.",
        "Put events on a timeline.",
        "Education",
        "history-geography",
        "histoire chronologie dates",
        "#c2255c",
    ],
    [
        "dictionnaire",
        "Dictionnaire",
        "Définitions, conjugaisons et synonymes, sans connexion.",
        "Definitions, conjugations and synonyms, offline.",
        "Education",
        "french",
        "mots conjugaison orthographe",
        "#e03131",
    ],
    [
        "tuxmath",
        "Calcul mental",
        "S’entraîner au calcul en jouant.",
        "Practise mental arithmetic by playing.",
        "Game",
        "mathematics",
        "tables opérations calcul",
        "#f08c00",
    ],
    [
        "anki",
        "Cartes à mémoriser",
        "Apprendre du vocabulaire un peu chaque jour.",
        "Learn vocabulary a little each day.",
        "Education",
        "languages",
        "vocabulaire anglais allemand révision",
        "#1098ad",
    ],
    [
        "vivant",
        "Atlas du vivant",
        "Reconnaître plantes et animaux de Lorraine.",
        "Recognise plants and animals of Lorraine.",
        "Education",
        "life-sciences",
        "svt plantes oiseaux",
        "#66a80f",
    ],
];

/// The sample catalogue, in the first release of each.
pub fn samples() -> Vec<App> {
    SAMPLES.iter().enumerate().map(|(number, sample)| sample_app(number, sample, 1)).collect()
}

/// A later release of one of them.
pub fn sample(name: &str, sequence: u64) -> App {
    let (number, sample) =
        SAMPLES.iter().enumerate().find(|(_, sample)| sample[0] == name).expect("a sample");
    sample_app(number, sample, sequence)
}

fn sample_app(
    number: usize,
    [name, title, fr, en, category, subject, keywords, colour]: &[&str; 8],
    sequence: u64,
) -> App {
    let keywords: Vec<String> =
        keywords.split(' ').filter(|word| word.len() > 2).map(|word| format!("\"{word}\"")).collect();
    let store = format!(
        r#"[store]
icon = "icon.svg"
keywords = [{}]
subjects = ["{subject}"]
levels = ["6e", "5e", "4e", "3e"]
author = "Atelier {title}"
homepage = "https://example.org/{name}"
description = {{ fr = "{fr}\n\nPensé pour la classe : tout fonctionne sans compte et sans connexion.", en = "{en}\n\nMade for the classroom: everything works without an account and offline." }}
news = {{ fr = "Version {sequence} : démarrage plus rapide et aide en français.", en = "Version {sequence}: faster start and help in French." }}
[[store.screenshot]]
image = "screenshot.svg"
caption = {{ fr = "La fenêtre principale de {title}", en = "The main window of {title}" }}
"#,
        keywords.join(", ")
    );
    let launched = format!(
        "#!/bin/sh\n[ -z \"$MIRABELLE_TEST_LAUNCHED\" ] || echo {name} {sequence} >> \"$MIRABELLE_TEST_LAUNCHED\"\n"
    );
    App::new(name, sequence)
        .titled([title, title], [fr, en])
        .categorised(category)
        .file(&format!("bin/{name}"), launched)
        .noise("share/data", 40_000, sequence * 100 + number as u64)
        .beside("icon.svg", icon(number, colour))
        .beside("screenshot.svg", screenshot(title, colour))
        .recipe(&store)
}

/// A deployment of samples to every college: Thonny is for teachers, one is blocked, some are featured; and how people sign in.
pub fn sample_policy(apps: &[App], sign_in: &str) -> String {
    let mut text = "featured = [\"geogebra\", \"stellarium\", \"libreoffice\"]\n".to_owned();
    for app in apps {
        let mode = match app.name.as_str() {
            "tuxmath" => "blocked",
            "thonny" => "available-to-teachers",
            _ => "available",
        };
        let _ = write!(text, "[[assignments]]\nmode = \"{mode}\"\npackage = \"{}\"\n", app.name);
    }
    text + "[[hours]]\ntime-zone = \"Europe/Paris\"\n" + sign_in
}

/// `count` packages that differ in their names, for measuring.
pub fn many(count: usize) -> Vec<App> {
    (0..count)
        .map(|number| {
            let name = format!("paquet-{number:04}");
            let title = format!("Paquet {number}");
            App::new(&name, 1)
                .titled([&title, &title], ["Un parmi beaucoup.", "One of many."])
                .categorised("Education")
        })
        .collect()
}

fn icon(number: usize, colour: &str) -> String {
    let shape = match number % 4 {
        0 => {
            r##"<circle cx="32" cy="32" r="15" fill="none" stroke="#fff" stroke-width="5"/><circle cx="43" cy="22" r="5" fill="#fff"/>"##
        }
        1 => r##"<path d="M18 22h16v8h12v14H30v-8H18z" fill="#fff"/>"##,
        2 => {
            r##"<path d="M20 16h18l8 8v24H20z" fill="#fff"/><path d="M25 32h16M25 39h12" stroke="#888" stroke-width="3"/>"##
        }
        _ => r##"<path d="M32 14l16 32H16z" fill="#fff"/>"##,
    };
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" fill="{colour}"/>{shape}</svg>"#
    )
}

fn screenshot(title: &str, colour: &str) -> String {
    let lines: Vec<String> = (0..6)
        .map(|line| {
            format!(
                r##"<rect x="190" y="{}" width="{}" height="10" rx="5" fill="#c9ced6"/>"##,
                90 + line * 28,
                250 - line * 22
            )
        })
        .collect();
    let lines = lines.concat();
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 300"><rect width="480" height="300" fill="#f3f4f6"/>
<rect width="480" height="44" fill="{colour}"/><text x="20" y="29" font-family="sans-serif" font-size="18" fill="#fff">{title}</text>
<rect x="20" y="64" width="140" height="216" rx="8" fill="#fff"/><rect x="36" y="84" width="108" height="60" rx="6" fill="{colour}" opacity=".5"/>{lines}</svg>"##
    )
}
