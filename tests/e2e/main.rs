//! End-to-end tests, one file a subject, run by `cargo xtask test [FILTER]`.
//!
//! They are `ignore`d because they need a sandbox with hosts, guests and unpacked tools; what `cargo test` runs needs
//! neither root nor QEMU.

mod a_guest_migrates_while_it_talks;
mod a_guest_moves_and_its_connections_with_it;
mod any_messages_hurt_only_their_sender;
mod checksums_of_real_guests;
mod cloud_hypervisor;
mod dpdk;
mod errors_from_the_fabric;
mod errors_from_the_fabric_quote_what_the_tenant_sent;
mod every_byte_on_the_wire_is_the_drafts;
mod every_page_the_daemon_writes_is_marked;
mod features;
mod forged_packets_from_the_fabric_are_dropped_by_name;
mod fragments_and_traceroute;
mod front_ends;
mod front_ends_killed_at_any_step_leave_nothing;
mod host_check;
mod hostile_connections_delay_nobody_else;
mod hostile_descriptors_are_closed_and_never_waited_for;
mod hostile_load_leaves_the_others_their_share;
mod hostile_memory_hurts_only_its_owner;
mod hostile_messages_hurt_only_their_sender;
mod hostile_rings_hurt_only_their_guest;
mod internet;
mod isolation;
mod memory_comes_and_goes_with_frames_in_it;
mod metadata;
mod names;
mod neighbouring_networks_hear_nothing_of_each_other;
mod offloads;
mod one_host_and_two;
mod ordinary_guests;
mod pasted_arguments;
mod queue_pairs;
mod receivers_see_valid_headers_only;
mod redirects;
mod refusals;
mod restarts;
mod rings_carry_what_is_in_them;
mod rings_go_on_where_a_killed_daemon_stopped;
mod router_machines;
mod soaks;
mod strangers_are_never_heard;
mod super_packets_arrive_whole_or_as_good_segments;
mod tasks;
mod the_bench_itself;
mod the_demo_can_fail;
mod the_kernels_own_ila;
mod the_thirteen_scenarios;
mod to_many;
mod traffic_flows_again_after_whatever_befalls_a_guest;
mod translation;
mod virtio_drivers_crate;
mod without_root;
