"""The path that sections know; the words are in `dynalab.core.words`."""

from dynalab.core.words import count as count
from dynalab.core.words import listed as listed
from dynalab.core.words import number as number
from dynalab.core.words import p_equals as p_equals
from dynalab.core.words import p_value as p_value
from dynalab.core.words import plain as plain
from dynalab.core.words import quartiles as quartiles
from dynalab.core.words import safe as safe
from dynalab.core.words import share as share
from dynalab.core.words import step_phrase as step_phrase
