//! The promises of DESIGN.md, each in a file of its name.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its world should stop")]

mod a_nodes_store;
mod a_release_that_fails_is_returned;
mod a_stick_fills_a_node;
mod a_workstation_finds_its_node;
mod agents;
mod all_or_nothing_on_a_node;
mod all_or_nothing_on_a_workstation;
mod an_operator_decides;
mod an_update_costs_its_difference;
mod any_index_can_be_deleted;
mod architecture;
mod bad_input;
mod canonical_json;
mod configuration_is_kept;
mod every_crash_point;
mod fake_machine;
mod forge;
mod freshness_under_a_cut_link;
mod interoperability;
mod it_updates_itself;
mod keys_on_tokens;
mod keys_survive_people;
mod memory_is_bounded;
mod native_packages;
mod off_by_its_hour;
mod old_clients_live_from_the_node;
mod once_over_the_wan;
mod online_keys_only_refresh_and_brake;
mod review_shows_what_is_approved;
mod the_agent_is_quiet;
mod the_main_job;
mod the_node_or_the_room_ends;
mod two_bodies;
mod what_goes_together;
mod witness;
