//! What asking would come to, and what somebody keeps on purpose.

use super::*;

#[test]
fn an_offer_is_what_asking_would_come_to() {
    let world = World::new()
        .release("alone", 1, &[])
        .release("alone", 2, &[])
        .release("needs", 1, &["requires base"])
        .release("base", 1, &[])
        .release("rival", 1, &["conflicts base"])
        .release("held-up", 1, &[])
        .release("teachers", 1, &[])
        .release("here", 1, &[])
        .line("alone", "available")
        .line("needs", "available")
        .line("base", "available")
        .line("rival", "required")
        .line("held-up", "available")
        .line("teachers", "teachers")
        .line("ghost", "available")
        .line("here", "available")
        .installed("here", 1)
        .paused("held-up", 1);
    for asker in [Asker::Anyone, Asker::Teacher] {
        let offers = world.with_situation(|situation| situation.offers(asker));
        for package in ["alone", "needs", "base", "rival", "held-up", "teachers", "ghost", "here"] {
            let asked =
                if package == "here" { world.decide() } else { world.clone().asked(package, asker).decide() };
            let package: PackageName = package.parse().unwrap();
            assert_eq!(offers[&package], asked[&package], "{package}");
        }
    }
}

#[test]
fn what_is_kept_on_purpose_stays_or_comes_back_until_its_day() {
    let world = || {
        World::new()
            .release("a", 1, &[])
            .release("a", 2, &[])
            .line("a", "available")
            .asked("a", Asker::Teacher)
            .keeps("a", 1)
    };
    let decision = |world: &World| world.decide().remove(&"a".parse().unwrap()).unwrap();
    let stays = decision(&world().installed("a", 1));
    assert_eq!((&stays.action, stays.reason()), (&Action::Keep, Some(&Reason::UpToDate)));
    assert!(stays.reasons.iter().any(|reason| matches!(reason, Reason::KeptOnPurpose { sequence: 1, .. })));
    let back = decision(&world().installed("a", 2));
    assert_eq!(back.release().map(|entry| entry.listing.sequence), Some(1));
    let comes = decision(&world());
    assert_eq!(comes.release().map(|entry| entry.listing.sequence), Some(1));
}

#[test]
fn nobody_keeps_a_release_beyond_its_day_against_a_deadline_a_pin_or_the_brake() {
    let begin = World::new().release("a", 1, &[]).release("a", 2, &[]);
    let sequence = |world: World| {
        let decision = world.decide().remove(&"a".parse().unwrap()).unwrap();
        decision.release().map(|entry| entry.listing.sequence)
    };
    let mut over = begin.clone().line("a", "required").installed("a", 1).keeps("a", 1);
    over.state.kept.get_mut(&"a".parse().unwrap()).unwrap().until = time(NOW);
    assert_eq!(sequence(over), Some(2), "its day is over");
    let mut late = begin.clone().line("a", "required").installed("a", 1).keeps("a", 1);
    late.deployment.assignments[0].deadline = Some(time(NOW));
    assert_eq!(sequence(late), Some(2), "the deadline does not wait");
    assert_eq!(
        sequence(begin.clone().line("a", "required 2").installed("a", 1).keeps("a", 1)),
        Some(2),
        "a pin"
    );
    assert_eq!(
        sequence(begin.clone().line("a", "required").installed("a", 2).keeps("a", 1).paused("a", 1)),
        None
    );
    assert_eq!(sequence(begin.line("a", "blocked").keeps("a", 1)), None);
}

#[test]
fn nobody_jumps_a_ring_by_keeping_what_has_not_come_yet() {
    let world = World::new()
        .release("a", 1, &[])
        .release("a", 2, &[])
        .just_approved()
        .line("a", "required")
        .rollout(24)
        .installed("a", 1)
        .keeps("a", 2);
    let decision = world.decide().remove(&"a".parse().unwrap()).unwrap();
    assert_eq!(decision.action, Action::Keep, "{:?}", decision.reasons);
}
