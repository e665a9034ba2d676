//! What the store shows is what was signed and approved, from the recipe to the page.

use fs_err as fs;
use mirabelle_tests::{World, get, sample};

#[test]
fn pictures_and_pages_come_from_the_packager_and_are_mended_on_a_node() {
    let app = sample("geogebra", 1);
    let mut world = World::new().college("57001").start();
    world.release(&app);
    let review = sample("geogebra", 2);
    world.submit(&review);
    let said = world.publisher(["review", "geogebra@2.0"]).succeeds().stdout;
    for words in [
        "in the store, OTHER THAN BEFORE",
        "author      Atelier GeoGebra",
        "subjects    mathematics",
        "pictures    2",
    ] {
        assert!(said.contains(words), "{words} is missing in:\n{said}");
    }
    world.publisher(["verify"]).succeeds();
    let college = world.college("57001");
    college.sync();
    let media = college.node_root().join("served/media");
    let mut files: Vec<_> = fs::read_dir(&media).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "icon, page and screenshot: {files:?}");
    let address = college.running_node().unwrap().address().to_owned();
    let asked = |path: &std::path::Path| {
        get(&address, &format!("media/{}", path.file_name().unwrap().to_str().unwrap()), "")
    };
    let before: Vec<Vec<u8>> = files.iter().map(|path| asked(path).body).collect();
    // The disk changes one, another goes.
    fs::write(&files[0], b"<svg onload='alert(1)'/>").unwrap();
    fs::remove_file(&files[1]).unwrap();
    for (path, before) in files.iter().zip(&before) {
        let answer = asked(path);
        assert_eq!((answer.status(), &answer.body), (200, before));
    }
    // What nobody approved is not looked for.
    assert_eq!(get(&address, &format!("media/{}", "0".repeat(64)), "").status(), 404);
}

#[test]
fn a_drawing_that_does_more_than_draw_is_refused_where_it_can_be_mended() {
    let world = World::new().start();
    let icon = r#"<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>"#;
    let app =
        mirabelle_tests::App::new("bad", 1).beside("icon.svg", icon).recipe("[store]\nicon = \"icon.svg\"");
    let work = tempfile::tempdir().unwrap();
    let recipe = app.write(work.path());
    let built = world.publisher(["build", "--key", "keys/packager-1.key", recipe.to_str().unwrap()]);
    built.fails(2, "it holds an event handler");
    // And what was built is not replaced on its way.
    let good = sample("geogebra", 1);
    let built = world.build(&good);
    let media = built.join("media");
    let file = fs::read_dir(&media).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, b"another").unwrap();
    world.publisher(["submit".as_ref(), built.as_os_str()]).fails(4, "is not the file that was signed");
}
