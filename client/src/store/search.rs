//! Finding packages by what people type: without accents, in any case, with a mistake or two.
//!
//! Every word of a title, name, keyword, subject or summary is folded once. A question's words are each compared with all words there
//! are: equal, beginning with it, holding it, or a few mistakes away (optimal string alignment: a letter more, less, other, or two
//! exchanged). All words of a question must be found; how well, and where, orders what is found.

use std::collections::{BTreeMap, HashMap};

use strsim::osa_distance;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::view::Item;

/// The most of a question, in letters, and of its words.
const MAX_LETTERS: usize = 80;
const MAX_WORDS: usize = 6;

/// The words of all items.
#[derive(Default)]
pub(crate) struct Index {
    /// A word, and the items that have it: with the weight of the best place where it stands.
    words: Vec<(String, Vec<(usize, u32)>)>,
}

/// How much a place says about what an item is.
const TITLE: u32 = 8;
const KEYWORD: u32 = 5;
const KIND: u32 = 3;
const SUMMARY: u32 = 1;

/// How well a word fits.
const EQUAL: u32 = 12;
const BEGINS: u32 = 9;
const HOLDS: u32 = 4;
const ONE_MISTAKE: u32 = 3;
const TWO_MISTAKES: u32 = 2;

impl Index {
    pub(crate) fn of(items: &[Item]) -> Self {
        let mut words: BTreeMap<String, HashMap<usize, u32>> = BTreeMap::new();
        for (number, item) in items.iter().enumerate() {
            let mut add = |text: &str, weight: u32| {
                for word in fold(text) {
                    let known = words.entry(word).or_default().entry(number).or_insert(weight);
                    *known = weight.max(*known);
                }
            };
            for text in [&item.title.fr, &item.title.en] {
                add(text, TITLE);
                // "Scratch Junior" is also looked for as one word.
                add(&fold(text).concat(), TITLE);
            }
            add(item.package.as_str(), TITLE);
            item.keywords.iter().for_each(|keyword| add(keyword, KEYWORD));
            item.categories.iter().for_each(|category| add(category, KIND));
            item.subjects.iter().for_each(|subject| add(subject.as_str(), KIND));
            for text in [&item.summary.fr, &item.summary.en] {
                add(text, SUMMARY);
            }
        }
        let words = words.into_iter().map(|(word, found)| (word, found.into_iter().collect())).collect();
        Self { words }
    }

    /// Numbers of the items that answer a question, the best first.
    pub(crate) fn find(&self, question: &str) -> Vec<usize> {
        let question: String = question.chars().take(MAX_LETTERS).collect();
        let words = fold(&question);
        let mut found: Option<HashMap<usize, u32>> = None;
        for word in words.iter().take(MAX_WORDS) {
            let with_word = self.with(word);
            found = Some(match found {
                None => with_word,
                Some(found) => {
                    let both = found
                        .into_iter()
                        .filter_map(|(number, score)| Some((number, score + with_word.get(&number)?)));
                    both.collect()
                }
            });
        }
        let mut found: Vec<(usize, u32)> = found.unwrap_or_default().into_iter().collect();
        found.sort_by_key(|(number, score)| (std::cmp::Reverse(*score), *number));
        found.into_iter().map(|(number, _)| number).collect()
    }

    /// The items that have such a word, and how well it fits.
    fn with(&self, word: &str) -> HashMap<usize, u32> {
        let mut scores: HashMap<usize, u32> = HashMap::new();
        for (known, items) in &self.words {
            let Some(fit) = fit(word, known) else { continue };
            for (number, weight) in items {
                let score = scores.entry(*number).or_default();
                *score = (fit * weight).max(*score);
            }
        }
        scores
    }
}

/// How well a word that was typed fits one that is known.
fn fit(typed: &str, known: &str) -> Option<u32> {
    if typed == known {
        return Some(EQUAL);
    }
    if known.starts_with(typed) {
        return Some(BEGINS);
    }
    let letters = typed.chars().count();
    if letters >= 3 && known.contains(typed) {
        return Some(HOLDS);
    }
    let allowed = match letters {
        0..=3 => return None,
        4..=6 => 1,
        _ => 2,
    };
    let known_letters = known.chars().count();
    let near = |length: usize, other: &str, allowed: usize| {
        (length.abs_diff(letters) <= allowed)
            .then(|| osa_distance(typed, other))
            .filter(|distance| *distance <= allowed)
    };
    // What is still being typed is compared with as much of the word, more strictly.
    let beginning: String = known.chars().take(letters).collect();
    let whole = near(known_letters, known, allowed);
    match whole.into_iter().chain(near(letters.min(known_letters), &beginning, 1)).min()? {
        0 | 1 => Some(ONE_MISTAKE),
        _ => Some(TWO_MISTAKES),
    }
}

/// The words of a text: small letters without accents, ligatures taken apart.
fn fold(text: &str) -> Vec<String> {
    let mut plain = String::with_capacity(text.len());
    for letter in text.nfkd().filter(|letter| !is_combining_mark(*letter)).flat_map(char::to_lowercase) {
        match letter {
            'œ' => plain.push_str("oe"),
            'æ' => plain.push_str("ae"),
            'ß' => plain.push_str("ss"),
            // l'élève is two words, GeoGebra's is none that anybody looks for.
            letter if letter.is_alphanumeric() || letter == '+' || letter == '#' => plain.push(letter),
            _ => plain.push(' '),
        }
    }
    plain
        .split_whitespace()
        .filter(|word| word.len() > 1 || word.chars().all(|c| c.is_ascii_digit()))
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::pages::tests::item;
    use super::*;

    fn shelf() -> Vec<Item> {
        let texts = [
            ("geogebra", "GeoGebra", "Géométrie et algèbre dynamiques", "maths"),
            ("scratch", "Scratch", "Programmer des jeux avec des blocs", "code"),
            ("libreoffice", "LibreOffice", "Écrire, calculer, présenter", "bureautique traitement de texte"),
            ("chimie", "Atelier de chimie", "Molécules et réactions", "sciences"),
            ("audacity", "Audacity", "Enregistrer et monter du son", "musique œuvre"),
            ("gimp", "GIMP", "Retoucher des images", "dessin photo"),
        ];
        texts
            .iter()
            .map(|(package, title, summary, keywords)| {
                let mut item = item(package);
                item.title.fr = (*title).to_owned();
                item.title.en = (*title).to_owned();
                item.summary.fr = (*summary).to_owned();
                item.keywords = vec![(*keywords).to_owned()];
                item
            })
            .collect()
    }

    #[test]
    fn what_people_type_finds_what_they_mean() {
        let items = shelf();
        let index = Index::of(&items);
        for (question, first) in [
            ("geogebra", Some("geogebra")),
            ("geogbra", Some("geogebra")),
            ("GEOGÉBRA", Some("geogebra")),
            ("goegebra", Some("geogebra")),
            ("geo", Some("geogebra")),
            ("geom", Some("geogebra")),
            ("scrach", Some("scratch")),
            ("scartch", Some("scratch")),
            ("chimei", Some("chimie")),
            ("Ecrire", Some("libreoffice")),
            ("libre office", Some("libreoffice")),
            ("traitement texte", Some("libreoffice")),
            ("oeuvre", Some("audacity")),
            ("image", Some("gimp")),
            ("molecule", Some("chimie")),
            ("zzzz", None),
            ("geogebra son", None),
            ("", None),
            ("  ' ; ", None),
        ] {
            let found = index.find(question).first().map(|number| items[*number].package.as_str());
            assert_eq!(found, first, "{question:?}");
        }
    }

    #[test]
    fn a_title_comes_before_what_only_mentions_it() {
        let mut items = shelf();
        items[0].summary.fr = "Comme Scratch, mais pour la géométrie".to_owned();
        let found = Index::of(&items).find("scratch");
        assert_eq!(
            found.iter().map(|number| items[*number].package.as_str()).collect::<Vec<_>>(),
            ["scratch", "geogebra"]
        );
    }

    #[test]
    fn a_question_without_end_is_cut() {
        let index = Index::of(&shelf());
        assert!(index.find(&"geogebra ".repeat(100_000)).len() <= 1);
    }
}
