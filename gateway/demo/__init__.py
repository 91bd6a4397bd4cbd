"""`eventbus demo`: the whole application in one process, and one lead driven through it.

stage.py  servers, migrations, gateway and worker, in the order in which they come up and go down
story.py  what an integrator does and what he can see of it
board.py  the steps on the screen
"""

from gateway.demo.command import demo

__all__ = ["demo"]
