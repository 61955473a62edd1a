"""The project's own environments, registered with Gymnasium as course/<Name>-v0."""

import gymnasium as gym

gym.register(
    "course/ConstantReward-v0", entry_point="common.envs.constant_reward:ConstantReward", max_episode_steps=8
)
gym.register(
    "course/CartPoleNoVelocity-v0",
    entry_point="common.envs.cartpole_no_velocity:CartPoleNoVelocity",
    max_episode_steps=500,
    reward_threshold=475.0,
)
gym.register("course/Breakout-v0", entry_point="common.envs.breakout_env:BreakoutEnv", max_episode_steps=200)
for name, game in (("TicTacToe", "tic-tac-toe"), ("ConnectThree", "connect-three")):
    entry_point = "common.envs.line_game_env:LineGameEnv"
    gym.register(f"course/{name}-v0", entry_point=entry_point, kwargs={"game": game})
SWING_UPS = ("PendulumSwingUp", "CartPoleSwingUp", "AcrobotSwingUp")
for name in ("DoubleIntegrator", *SWING_UPS, "Quadrotor", "CarDiscs"):
    gym.register(
        f"course/{name}-v0",
        entry_point="common.envs.control_env:ControlEnv",
        kwargs={"env_id": f"course/{name}-v0"},
    )
gym.register("course/CarForest-v0", entry_point="common.envs.car_forest:CarForestEnv", max_episode_steps=32)
gym.register("course/Lob-v0", entry_point="common.envs.lob:LobEnv")
gym.register("course/TwoWay-v0", entry_point="common.envs.two_way:TwoWayEnv", max_episode_steps=60)
gym.register(
    "course/LaneKeeping-v0", entry_point="common.envs.lane_keeping:LaneKeepingEnv", max_episode_steps=400
)
gym.register("course/PointMaze-v0", entry_point="common.envs.point_maze:PointMazeEnv", max_episode_steps=80)
gym.register("course/Obstacles-v0", entry_point="common.envs.obstacles:Obstacles", max_episode_steps=100)
gym.register("course/Reacher-v0", entry_point="common.envs.mujoco_reacher:Reacher", max_episode_steps=200)
gym.register(
    "course/CheetahRun-v0", entry_point="common.envs.mujoco_cheetah:CheetahRun", max_episode_steps=500
)
gym.register(
    "course/CartPoleSwingUpDense-v0",
    entry_point="common.envs.cartpole_dense:CartPoleDense",
    max_episode_steps=200,
)
gym.register(
    "course/PendulumSwingUpDense-v0",
    entry_point="common.envs.pendulum_dense:PendulumDense",
    max_episode_steps=40,
)
gym.register("course/DynaMaze-v0", entry_point="common.envs.maze:Maze", max_episode_steps=2_000)
gym.register(
    "course/PointMassPixels-v0", entry_point="common.envs.pixels:PointMassPixels", max_episode_steps=40
)
gym.register(
    "course/PendulumPixels-v0", entry_point="common.envs.pixels:PendulumPixels", max_episode_steps=100
)
gym.register("course/PushPixels-v0", entry_point="common.envs.pushing:PushPixels", max_episode_steps=16)
