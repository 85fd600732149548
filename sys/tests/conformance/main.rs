//! One suite for every [`Kernel`](segvm_os::Kernel): the real one by each engine, and the model obey it alike.
//!
//! Ranges are smaller than a huge page and not aligned to one; fault-around, which only the real kernel does, is allowed
//! for.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test panics"
)]
mod memory;
mod subject;
mod tracking;

macro_rules! suite {
    ($($room:ident: $($rule:ident,)*;)*) => {
        suite!(@ real: crate::subject::Real::with(Engine::WpAsync, Without::default()), $($($room $rule)*)*);
        suite!(@ model: crate::subject::Model(segvm_os::ModelKernel::new()), $($($room $rule)*)*);
        suite!(@ wp_sync: crate::subject::Real::with(Engine::WpSync, Without::default()), $($($room $rule)*)*);
        suite!(@ wp_sync_on_an_old_kernel: crate::subject::Real::with(Engine::WpSync, OLD), $($($room $rule)*)*);
        suite!(@ mprotect: crate::subject::Real::with(Engine::Mprotect, Without::default()), $($($room $rule)*)*);
        suite!(@ mprotect_on_an_old_kernel: crate::subject::Real::with(Engine::Mprotect, OLD), $($($room $rule)*)*);
    };
    (@ $subject:ident: $make:expr, $($room:ident $rule:ident)*) => {
        mod $subject {
            #[allow(unused_imports, reason = "not every subject has an engine")]
            use {segvm_os::{Engine, Without}, crate::OLD};
            $(
                #[test]
                fn $rule() {
                    crate::$room::$rule(&$make);
                }
            )*
        }
    };
}

/// What an engine that is for any kernel must do without.
const OLD: segvm_os::Without = segvm_os::Without {
    pagemap_scan: true,
    process_vm_readv: true,
    wp_unpopulated: true,
    kernel_faults: true,
};

suite! {
    memory:
    a_taken_range_is_refused_and_a_released_one_is_free,
    committed_memory_is_zero_and_private_once_written,
    a_fence_frees_and_shuts,
    a_mapped_file_is_clean_until_written,
    a_file_is_mapped_from_an_aligned_offset_and_over_what_was_there,
    read_only_pages_keep_their_state,
    read_only_pages_are_armed_as_others,
    copies_are_exact_and_name_the_page_they_stop_at,
    discarded_memory_is_zero_and_unarmed,
    secluded_memory_stays_so_until_it_is_made_anew,
    empty_ranges_are_nothing_to_do,
    ;
    tracking:
    written_pages_are_found_and_armed_again,
    what_was_never_armed_counts_as_written,
    holes_that_were_never_armed_count_as_written,
    both_ways_from_cold_to_warm_tell_what_was_private,
    a_page_armed_while_absent_is_taken_for_private_until_it_comes,
    unregistering_disarms_and_forgets,
    dropping_a_watch_disarms,
    a_scan_that_fails_reports_nothing_and_may_have_armed,
    replacing_a_mapping_ends_its_registration,
    installed_pages_are_armed_and_only_where_none_was,
    what_the_kernel_writes_to_is_written_to_and_reported,
    ;
}
