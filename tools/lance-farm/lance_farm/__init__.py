"""lance-farm: a saved workflow of Lance nodes on many machines. docs/farm.md is the manual.

Files, from the ground up: errors, files (whole files and names), programs (lanced and lancectl), workflow, table and
values (what a job consists of), job (its folder), claims and beats (who does which task), results, worker, submit,
status, collect and page, openjd, cli.
"""
