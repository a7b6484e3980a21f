"""N3: replies only are lost. The write happens, and its sender never hears of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="lost-replies",
    title="all answers of one node to its clients are lost; requests still arrive",
    aim="I2 I5: what was stored unheard and is sent again through others is stored once",
    recipe=Recipe("lose-replies", ("any-1",), ((1.0, 6.0),), waits=(0.5, 1.5), recovery=1.0),
    links=True,
)
