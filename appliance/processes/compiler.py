"""The grammar compiler's process: it reads the tokenizer of each served model and forks a child for each structure.

It may be killed at any time: gateways are told that constrained output is unavailable, all else goes on. It holds no secret, has
no network and writes nothing; its children have what it has, under limits of their own, and execute nothing.
"""

from functools import partial
from pathlib import Path

from appliance.config.schema import served_name_of
from appliance.grammars.service import CompilerService
from appliance.inference.vocabulary import load_grammar_vocabulary
from appliance.models.admission import admit_model, verify_read
from appliance.models.naming import naming_model
from appliance.processes.member import Member
from runtime.structured.walking import Walker
from runtime.weights.config import load_model_config


async def serve(member: Member) -> None:
    """Serve until drained.

    Raises: CheckpointRejected, StartRefused.
    """
    walkers: dict[str, Walker] = {}
    for engine in member.config.engines:
        folder = Path(engine.model_path)
        with naming_model(folder):
            admitted = admit_model(member.config, folder)
            model = load_model_config(folder)
            on_read = partial(verify_read, admitted)
            vocabulary = load_grammar_vocabulary(folder, model.eos_token_ids, model.vocab_size, on_read)
        if vocabulary is not None:
            walkers[served_name_of(engine)] = Walker(vocabulary)
    member.on_link("gateway", CompilerService(walkers, member.config.grammar).run)
    await member.ready()
    await member.draining.wait()
