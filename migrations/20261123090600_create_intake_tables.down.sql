set local lock_timeout = '5s';

drop function delete_document(uuid);
drop table source_references;
drop table account_numbers;
drop table income_records;
drop table borrowers;
drop table documents;
drop function text_trigrams(text);
